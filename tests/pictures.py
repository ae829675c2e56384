"""What many tests are made of: a dark photograph, and a small network that brightens it."""

from __future__ import annotations

import numpy as np
import torch

from zdce.model import CurveNet


def dark(height=24, width=30, dtype=np.uint8, seed=0):
    """A dark photograph: a ramp with some noise, (height, width, 3) of ``dtype``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ramp = (x / width + y / height)[..., None] * [0.2, 0.15, 0.1]
    pixels = ramp + rng.random((height, width, 3)) * 0.1
    return np.rint(pixels * np.iinfo(dtype).max).astype(dtype)


def trained(width=4, **fields):
    """A small network whose curves brighten, with different strength per place and colour."""
    torch.manual_seed(0)
    net = CurveNet(width=width, **fields).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5 / width**0.5)
        last = net.e_conv7.point_conv.bias if net.config.separable else net.e_conv7.bias
        last.copy_(torch.linspace(-0.9, -0.3, len(last)))
    return net
