"""What is done to a photograph around the curve: gamma, strength, highlight protection, noise.

Arrays are (H, W, 3) uint8 or uint16; tensors are (N, 3, H, W) float in [0, 1].
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # BT.601
NOISE_BLOCK = 16  # pixels a side of the blocks in which noise is estimated (ours)
NOISE_QUANTILE = 0.05  # share of blocks that are taken to hold noise alone (ours)
FILTER_FLOOR = 1e-6  # variance of rounding, a quarter grey level squared: slopes need more
FILTER_BLOCK = 4  # pixels a side of the blocks on which the guided filter is worked out (ours)


def gamma_table(gamma: float, dtype: np.typing.DTypeLike = np.uint8) -> np.ndarray:
    """Gamma curve for grey levels: entry v is round(255·(v/255)^gamma), (256,) uint8; or, ours,
    the same with 65535, (65536,) uint16.

    gamma: above 1 darkens and tames over-exposure, below 1 brightens, 1 changes nothing. Raises
    ValueError when it is not a finite number above 0. Source: improved study, which uses 1.15.
    """
    check_gamma(gamma)
    top = np.iinfo(dtype).max
    return np.rint(top * (np.arange(top + 1) / top) ** gamma).astype(dtype)


def apply_gamma(pixels: np.ndarray, gamma: float) -> np.ndarray:
    """Pixels of any shape, uint8 or uint16, through :func:`gamma_table`; same shape and dtype.

    Raises ValueError for another dtype.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are {pixels.dtype}: give uint8 or uint16")
    return gamma_table(gamma, pixels.dtype)[pixels]


def blend(original: np.ndarray, enhanced: np.ndarray, strength: float) -> np.ndarray:
    """Linear mix (1 − strength)·original + strength·enhanced, rounded for integers; a new array.

    Both are of one shape and one dtype: uint8, uint16, or float in [0, 1]. strength in [0, 1]:
    0 returns the original and 1 the enhanced, bit for bit. Raises ValueError otherwise. Source:
    ours.
    """
    if original.shape != enhanced.shape or original.dtype != enhanced.dtype:
        raise ValueError(
            f"original is {original.shape} {original.dtype}, "
            f"enhanced is {enhanced.shape} {enhanced.dtype}: both need one shape and one dtype"
        )
    check_strength(strength)
    if strength in (0, 1):
        return (enhanced if strength else original).copy()
    working = np.result_type(original.dtype, np.float32)
    mixed = original.astype(working)
    mixed += working.type(strength) * (enhanced.astype(working) - mixed)
    return (mixed if original.dtype.kind == "f" else np.rint(mixed)).astype(original.dtype)


def luma(image: Tensor) -> Tensor:
    """Brightness (N, 1, H, W) of an image (N, 3, H, W): 0.299 R + 0.587 G + 0.114 B (BT.601)."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def highlight_protection(image: Tensor) -> Tensor:
    """Factor for curves that makes them fade out towards white: 1 − m³, m a pixel's largest
    channel.

    image: (N, 3, H, W) in [0, 1], before any curve. Returns (N, 1, H, W) in [0, 1]. Lamps and skies
    keep what contrast they have; the largest channel counts for all three, so that a coloured lamp
    keeps its colour. Source: ours.
    """
    return 1 - image.amax(dim=1, keepdim=True) ** 3


def estimate_noise(blocks: Tensor) -> Tensor:
    """Standard deviation of a photograph's noise in grey levels of 255: (N,).

    blocks: (N, 3, 16·h, 16·w) in [0, 1], squares of 16 × 16 pixels of the photograph side by side.
    The noise of a block is the root mean square of the luma's diagonal second differences (the
    finest diagonal band of a Haar transform); the photograph's is the 5 % quantile over blocks,
    because texture is not everywhere and noise is. Blocks of one value, such as clipped ones, count
    as free of noise. Source: estimation from the most uniform blocks, a usual method; numbers ours.
    """
    y = 255 * luma(blocks)
    upper, lower = y[..., ::2, :], y[..., 1::2, :]
    diagonal = ((upper[..., ::2] - upper[..., 1::2]) - (lower[..., ::2] - lower[..., 1::2])) / 2
    energy = F.avg_pool2d(diagonal.square(), NOISE_BLOCK // 2).flatten(1)
    return torch.quantile(energy, NOISE_QUANTILE, dim=1).sqrt()


def guided_filter(image: Tensor, noise: Tensor) -> Tensor:
    """``image`` without detail that is fainter than its noise; edges stay.

    image: (N, 3, H, W) in [0, 1]. noise: (N, 256), the standard deviation to take out (in the
    image's units) where the brightness of the surroundings is 0/255 … 255/255; a row of zeros
    leaves its photograph unchanged. Returns (N, 3, H, W) in [0, 1].

    Within a window, each colour is replaced by a straight line in the luma, whose slope is
    covariance / (variance + noise²): 1 across grey edges, about 0 where there is noise alone. Means
    over blocks of 4 × 4 pixels (cut short at the right and lower border) stand for the pixels, and
    windows are 3 × 3 blocks; slopes and offsets come back to the pixels bilinearly.

    Source: "Fast Guided Filter" (He and Sun, 2015), except that moments are of all pixels and not
    of a subsample; noise by brightness is ours.
    """
    guide = luma(image)
    centre = guide.mean(dim=(2, 3), keepdim=True)  # moments about it: single precision cancels less
    guide, x = guide - centre, image - centre
    moments = torch.cat([x, guide * x], dim=1)
    moments = F.avg_pool2d(moments, FILTER_BLOCK, ceil_mode=True, count_include_pad=False)
    mean, product = _box(moments).split(3, dim=1)
    covariance = product - luma(mean) * mean
    variance = luma(covariance).clamp_min(0)  # luma is linear: it also turns means into the guide's
    level = (255 * (luma(mean) + centre)).round().long().clamp(0, 255)
    deviation = noise.gather(1, level.flatten(1)).view(level.shape)
    slope = covariance / (variance + deviation.square() + FILTER_FLOOR)
    lines = _box(torch.cat([slope, mean - slope * luma(mean)], dim=1))
    lines = F.interpolate(lines, scale_factor=FILTER_BLOCK, mode="bilinear", align_corners=False)
    slope, offset = lines[..., : image.shape[-2], : image.shape[-1]].split(3, dim=1)
    filtered = (slope * guide + offset + centre).clamp(0, 1)
    return torch.where((noise > 0).any(dim=1).view(-1, 1, 1, 1), filtered, image)


def _box(x: Tensor) -> Tensor:
    """Means over 3 × 3 neighbours; at the border, over those that are there."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def check_gamma(gamma: float) -> None:
    """Raise ValueError unless ``gamma`` is a finite number above 0."""
    if not (math.isfinite(gamma) and gamma > 0):
        raise ValueError(f"gamma={gamma}: must be a finite number above 0 (1 changes nothing)")


def check_strength(strength: float) -> None:
    """Raise ValueError unless ``strength`` lies in [0, 1]."""
    if not 0 <= strength <= 1:
        raise ValueError(
            f"strength={strength}: must lie between 0 (the original) and 1 (the enhanced)"
        )
