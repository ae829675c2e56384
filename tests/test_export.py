"""Networks as ONNX files: any size, the same values, no file when they differ."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pictures import trained

from zdce import checkpoints, export
from zdce.checkpoints import Model
from zdce.cli import main

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_a_file_from_the_command_gives_what_the_network_gives_at_any_size(tmp_path, weights):
    out = tmp_path / "new" / "small.onnx"
    result = CliRunner().invoke(main, ["export", "--weights", str(weights), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.parent.iterdir()] == ["small.onnx"]
    session, net = onnxruntime.InferenceSession(str(out)), checkpoints.load(weights).net
    for batch, *size in [(1, 24, 30), (2, 17, 1), (1, 3, 128)]:
        image = torch.rand(batch, 3, *size)
        with torch.inference_mode():
            expected = net(image)[0].clamp(0, 1) ** 1.3
        (enhanced,) = session.run(["enhanced"], {"image": image.numpy()})
        assert enhanced.shape == image.shape and np.abs(enhanced - expected.numpy()).max() < 1e-4


def test_no_file_where_there_is_no_network_of_any_size_or_the_file_differs(tmp_path):
    fixed = Model("fixed", trained(pooling="stride2"), 1.0, tmp_path, {})
    for model in (checkpoints.load("auto"), fixed):
        with pytest.raises(export.ExportError, match="--model zero-dce-improved"):
            export.to_onnx(model, tmp_path / "none.onnx")
    net = trained()
    torch.nn.init.constant_(next(net.parameters()), float("nan"))
    with pytest.raises(export.ExportError, match="differs"):
        export.to_onnx(Model("small", net, 1.0, tmp_path, {}), tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())
