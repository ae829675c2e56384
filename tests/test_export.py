"""Networks as ONNX files: any size, the same values, no file when they differ."""

from __future__ import annotations

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


def test_a_file_from_the_command_gives_what_the_network_gives_at_any_size(tmp_path):
    weights, out = tmp_path / "small.safetensors", tmp_path / "new" / "small.onnx"
    checkpoints.save(weights, trained(pooling="overlapping"), "small", gamma=1.3)
    result = CliRunner().invoke(main, ["export", "--weights", str(weights), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.parent.iterdir()] == [
        "small.onnx"
    ] and "largest difference" in result.output
    session, net = onnxruntime.InferenceSession(str(out)), checkpoints.load(weights).net
    for batch, *size in [(1, 24, 30), (2, 17, 1), (1, 3, 128)]:
        image = torch.rand(batch, 3, *size)
        with torch.inference_mode():
            expected = net(image)[0].clamp(0, 1) ** 1.3
        (enhanced,) = session.run(["enhanced"], {"image": image.numpy()})
        assert enhanced.shape == image.shape and np.abs(enhanced - expected.numpy()).max() < 1e-4


def test_the_curve_alone_has_no_network_to_export(tmp_path):
    with pytest.raises(export.ExportError, match="--model zero-dce-improved"):
        export.to_onnx(checkpoints.load("auto"), tmp_path / "auto.onnx")
    assert not list(tmp_path.iterdir())


def test_no_file_that_differs_or_cannot_be(tmp_path, monkeypatch):
    net = trained(pooling="stride2")
    with pytest.raises(export.ExportError, match="depend on the photograph's"):
        export.to_onnx(Model("odd", net, 1.0, tmp_path, {}), tmp_path / "odd.onnx")
    with pytest.raises(ValueError, match=r"small\.bin: give a name that ends in \.onnx"):
        export.to_onnx(Model("small", trained(), 1.0, tmp_path, {}), tmp_path / "small.bin")
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    with pytest.raises(export.ExportError, match="differs"):
        export.to_onnx(Model("small", trained(), 1.0, tmp_path, {}), tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())
