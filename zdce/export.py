"""Networks as ONNX files, for programs that run without PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zdce.checkpoints import Model
from zdce.engine.reference import halo
from zdce.files import atomic_write
from zdce.model import CurveNet

DEFAULT = "zero-dce-improved"  # what is exported where nobody says otherwise
OPSET = 18
SIZES = ((64, 96), (37, 53))  # rows and columns at which the file is compared with the network
TOLERANCE = 1e-4  # largest difference allowed, of 1: a fortieth of a grey level


class ExportError(RuntimeError):
    """A network that could not be exported, or a file that does not give what the network gives."""


class _Enhancing(nn.Module):
    """A network's enhanced image alone, then gamma."""

    def __init__(self, net: nn.Module, gamma: float) -> None:
        super().__init__()
        self.net, self.gamma = net, gamma

    def forward(self, image: Tensor) -> Tensor:
        enhanced = self.net(image)[0].clamp(0.0, 1.0)
        return enhanced if self.gamma == 1 else enhanced**self.gamma


def to_onnx(model: Model, path: str | os.PathLike, *, gamma: float | None = None) -> float:
    """Write ``model`` as an ONNX file and compare it with PyTorch in ONNX Runtime; the largest
    difference found.

    The file's one input ``image`` and one output ``enhanced`` are (batch, 3, height, width) float32
    in [0, 1], of any batch, height and width. gamma: as in :class:`~zdce.enhance.Enhancer`, but on
    values that were not rounded to 8 bits first. Weights are float32, within the file. The file
    appears only when it agrees to :data:`TOLERANCE`. Needs the extra ``export``; ValueError without
    it or for a wrong suffix, ExportError when the network cannot be exported (those that pool with
    stride 2) or disagrees. Source: ours.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch makes the file with it)
    except ImportError:
        raise ValueError('export needs ONNX: pip install "zdce[export]"') from None
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"out={path}: give a name that ends in .onnx")
    if model.file is None:
        choose = f"choose --model {DEFAULT}, or --weights"
        raise ExportError(f"{model.name}: has no network to export; {choose}")
    if isinstance(model.net, CurveNet) and halo(model.net) is None:
        sizes = "sizes inside this network depend on the photograph's"
        raise ExportError(f"{model.name}: {sizes}; it is not exported")
    net = _Enhancing(model.net, model.gamma if gamma is None else gamma).cpu().eval()
    try:
        data = _content(net)
        onnx.checker.check_model(data)
    except Exception as error:  # the exporter raises nearly anything
        raise ExportError(f"{model.name}: not exported: {str(error).splitlines()[0]}") from error
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    difference = max(_difference(net, session, size) for size in SIZES)
    if not difference <= TOLERANCE:
        much = f"by {difference:.2g}, more than {TOLERANCE:g}"
        raise ExportError(f"{path}: differs from the network {much}")
    with atomic_write(path) as partial:
        partial.write_bytes(data)
    return difference


def _content(net: nn.Module) -> bytes:
    sides = {
        axis: torch.export.Dim(name, min=1, max=most)
        for axis, name, most in ((0, "batch", 2**10), (2, "height", 2**16), (3, "width", 2**16))
    }
    program = torch.onnx.export(
        net,
        (torch.rand(2, 3, *SIZES[0]),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["enhanced"],
        dynamic_shapes={"image": sides},
        verbose=False,
    )
    return program.model_proto.SerializeToString()


def _difference(net: nn.Module, session, size: tuple[int, int]) -> float:
    """Largest difference between network and file on a photograph of noise of that size."""
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = net(image).numpy()
    (enhanced,) = session.run(None, {"image": image.numpy()})
    return float(np.abs(enhanced - expected).max())
