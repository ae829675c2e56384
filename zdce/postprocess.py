"""What is done to a photograph around the curve: gamma, strength, highlight protection, noise.

Arrays are (H, W, 3) uint8 or uint16; tensors are (N, 3, H, W) float in [0, 1].
"""

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
    """Entry v is round(255·(v/255)^gamma), (256,) uint8; or, ours, with 65535, (65536,) uint16.

    gamma: above 1 darkens and tames over-exposure, below 1 brightens. Raises ValueError unless it
    is a finite number above 0. Source: improved study, which uses 1.15.
    """
    check_gamma(gamma)
    top = np.iinfo(dtype).max
    return np.rint(top * (np.arange(top + 1) / top) ** gamma).astype(dtype)


def apply_gamma(pixels: np.ndarray, gamma: float) -> np.ndarray:
    """Pixels of any shape, uint8 or uint16, through :func:`gamma_table`; same shape and dtype."""
    return gamma_table(gamma, pixels.dtype)[pixels]


def blend(original: np.ndarray, enhanced: np.ndarray, strength: float) -> np.ndarray:
    """Linear mix (1 − strength)·original + strength·enhanced, rounded for integers; a new array.

    Both are of one shape and dtype: uint8, uint16, or float in [0, 1]. Source: ours.
    """
    mixed = original.astype(np.result_type(original.dtype, np.float32))
    mixed += mixed.dtype.type(strength) * (enhanced.astype(mixed.dtype) - mixed)
    return (mixed if original.dtype.kind == "f" else np.rint(mixed)).astype(original.dtype)


def luma(image: Tensor) -> Tensor:
    """Brightness (N, 1, H, W) of an image (N, 3, H, W): 0.299 R + 0.587 G + 0.114 B (BT.601)."""
    red, green, blue = image.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def highlight_protection(image: Tensor) -> Tensor:
    """Factor that makes curves fade out towards white, so that lamps and skies keep contrast.

    1 − m³ of each pixel's largest channel m, so that a coloured lamp keeps its colour. image:
    (N, 3, H, W) in [0, 1], before any curve. Returns (N, 1, H, W) in [0, 1]. Source: ours.
    """
    return 1 - image.amax(dim=1, keepdim=True) ** 3


def estimate_noise(blocks: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Standard deviation of a photograph's noise, in the unit of its pixels: (N,), like ``blocks``.

    blocks: (N, 16·h, w, 16, 3) float32, squares of photographs. A block's noise is the root mean
    square of the luma's diagonal second differences (Haar); the photograph's is the 5 % quantile
    over blocks, because noise is everywhere and texture is not. Source: estimation from the most
    uniform blocks, a usual method; numbers ours.
    """
    xp = torch if isinstance(blocks, Tensor) else np  # the same in both
    kind = {"dtype": xp.float32, "device": blocks.device}
    pairs = blocks.reshape(len(blocks), -1, NOISE_BLOCK // 2, 2, blocks.shape[2], 3 * NOISE_BLOCK)
    neighbours = xp.asarray([[*LUMA, *(-weight for weight in LUMA)]], **kind)
    both = xp.kron(xp.eye(NOISE_BLOCK // 2, **kind), neighbours).T
    diagonal = (pairs[:, :, :, 0] - pairs[:, :, :, 1]) @ both / 2
    energy = (diagonal * diagonal).mean((2, 4)).reshape(len(blocks), -1)
    return xp.sqrt(xp.quantile(energy, NOISE_QUANTILE, 1))


def guided_filter(image: Tensor, noise: Tensor) -> Tensor:
    """``image`` without detail that is fainter than its noise; edges stay.

    image: (N, 3, H, W) in [0, 1]. noise: (N, 256), the standard deviation to take out (in the
    image's units) where the surroundings are 0/255 … 255/255 bright; zeros change nothing.

    Within a window, each colour becomes a straight line in the luma, of slope covariance /
    (variance + noise²): 1 across grey edges, about 0 where there is noise alone. Windows are 3 × 3
    blocks of 4 × 4 pixels; slopes and offsets come back to the pixels bilinearly. Source: "Fast
    Guided Filter" (He and Sun, 2015), but with moments of all pixels; noise by brightness is ours.
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
