"""How curves become pixels, fast: one interface, and the engine that fits network and device.

:mod:`~zdce.engine.reference` defines what is computed, in torch on any device;
:mod:`~zdce.engine.compiled` computes the same as machine code on the processor, with the
convolutions of :mod:`~zdce.engine.winograd`. :func:`choose` takes the fastest.
"""

from __future__ import annotations

import torch
from torch import nn

from zdce.engine import compiled
from zdce.engine.compiled import Compiled
from zdce.engine.reference import Curves, Reference

__all__ = ["Compiled", "Curves", "Reference", "candidates", "choose"]


def choose(
    net: nn.Module, device: torch.device | str = "cpu", *, reduced: bool = False
) -> Reference:
    """The fastest engine for a network on a device, with the reason as text in ``reason``.

    ``engine.render(pixels)`` enhances a photograph; ``engine.curves(pixels)`` and
    ``engine.render(pixels, curves)`` do so in two steps. reduced: as in :class:`Reference`.
    """
    return candidates(net, device, reduced=reduced)[0]


def candidates(
    net: nn.Module, device: torch.device | str = "cpu", *, reduced: bool = False
) -> list[Reference]:
    """All engines that could run a network on a device, the chosen one first."""
    device = torch.device(device)
    if device.type == "cpu" and compiled.can_run(net):
        reason = "machine code for this processor"
        return [
            Compiled(net, reduced=reduced, reason=reason),
            Reference(net, device, reduced=reduced, reason="the same in torch"),
        ]
    why = "numba is not installed" if compiled.numba is None else "no machine code for it"
    reason = "torch on the GPU" if device.type != "cpu" else f"torch: {why}"
    return [Reference(net, device, reduced=reduced, reason=reason)]
