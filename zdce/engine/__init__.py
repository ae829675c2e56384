"""How curves become pixels, fast: one interface, and the engine that fits network and device.

:mod:`~zdce.engine.reference` defines what is computed, in torch on any device, and
:mod:`~zdce.engine.compiled` computes it as machine code on the processor, convolutions by
:mod:`~zdce.engine.winograd` and the curve alone by :mod:`~zdce.engine.one_curve`.
"""

import torch
from torch import nn

from zdce import memory
from zdce.auto import AutoCurve
from zdce.engine import compiled
from zdce.engine.compiled import Compiled
from zdce.engine.reference import Curves, Reference, halo
from zdce.model import CurveNet

__all__ = ["Compiled", "Curves", "Reference", "candidates", "choose", "has_matrix_units"]


def choose(net: nn.Module, device: torch.device | str = "cpu", reduced: bool = False) -> Reference:
    """The fastest engine for a network on a device, and why in its ``reason``.

    ``engine.render(pixels)`` enhances a photograph. reduced: as in :class:`Reference`.
    """
    memory.keep_freed()
    return candidates(net, device, reduced=reduced)[0]


def candidates(
    net: nn.Module, device: torch.device | str = "cpu", *, reduced: bool = False
) -> list[Reference]:
    """All engines that run a network on a device, the fastest first."""
    device, units = torch.device(device), has_matrix_units()
    every_pixel = isinstance(net, CurveNet) and not reduced and halo(net) is not None
    engines, plain = [], Reference(net, device, reduced=reduced, reason="torch in float32")
    if every_pixel and device.type != "cpu":
        why = "a GPU multiplies 16-bit floats fastest"
        engines.append(Reference(net, device, precision=torch.float16, reason=why))
    elif every_pixel and units:
        why = "this processor has matrix units for bfloat16"
        engines.append(Reference(net, precision=torch.bfloat16, reason=why))
    if device.type == "cpu" and compiled.numba and isinstance(net, CurveNet | AutoCurve):
        lacking = ", which has no matrix units for bfloat16" * (every_pixel and not units)
        why = f"machine code for this processor{lacking}"
        engines.append(Compiled(net, reduced=reduced, reason=why))
    if device.type == "cpu" and compiled.numba is None:
        plain.reason += ': numba is not installed (pip install "zdce[fast]")'
    return [*engines, plain]


def has_matrix_units() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in units of their own (AMX)."""
    return torch.cpu._is_amx_tile_supported() and torch.backends.mkldnn.is_available()
