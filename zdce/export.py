"""Networks as ONNX files, for programs that run without PyTorch."""

import os

import numpy as np
import torch
from torch import Tensor, nn

from zdce.checkpoints import Model
from zdce.engine.reference import halo
from zdce.files import atomic_write
from zdce.model import CurveNet
from zdce.postprocess import check_gamma

DEFAULT = "zero-dce-improved"  # what is exported where nobody says otherwise
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
    values that were not rounded to 8 bits first. The file appears only when it agrees to
    :data:`TOLERANCE`. ValueError without the extra ``export``, ExportError when the network cannot
    be exported (auto, a reduced copy, pools with stride 2) or disagrees. Source: ours.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch makes the file with it)
    except ImportError:
        raise ValueError('export needs ONNX: pip install "zdce[export]"') from None
    if model.file is None or (isinstance(model.net, CurveNet) and halo(model.net) is None):
        none = "no network, or one whose sizes depend on the photograph's, which is not exported"
        raise ExportError(f"{model.name}: {none}; choose --model {DEFAULT}")
    gamma = model.gamma if gamma is None else gamma
    check_gamma(gamma)
    net = _Enhancing(model.net, gamma).cpu().eval()
    most = {"batch": 2**10, "height": 2**16, "width": 2**16}
    batch, *sides = (torch.export.Dim(name, min=1, max=each) for name, each in most.items())
    program = torch.onnx.export(
        net,
        (torch.rand(2, 3, *SIZES[0]),),
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        output_names=["enhanced"],
        dynamic_shapes={"image": {0: batch, 2: sides[0], 3: sides[1]}},
        verbose=False,
    )
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    images = [torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) for size in SIZES]
    with torch.inference_mode():
        pairs = [(net(i).numpy(), session.run(None, {"image": i.numpy()})[0]) for i in images]
    difference = float(np.max([np.abs(enhanced - given).max() for enhanced, given in pairs]))
    if not difference <= TOLERANCE:  # also when it is NaN
        raise ExportError(f"{path}: differs from the network by {difference:.2g}")
    with atomic_write(path) as partial:
        partial.write_bytes(data)
    return difference
