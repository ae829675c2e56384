"""The curve alone: one number for a photograph, found by bisection, and no network.

The paper's network estimates eight curves for every pixel and colour. Here all are one number r,
with which a sample of 64 × 64 pixels reaches the brightness that is asked of it. Noise is filtered
before the curve, and the curve fades out towards white (:mod:`zdce.postprocess`).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from zdce.model import apply_curves
from zdce.postprocess import NOISE_BLOCK, estimate_noise, guided_filter, highlight_protection

VERSION = 2  # of the constants below: kept scores of other versions are not looked up
ITERATIONS = 8  # paper
TARGET_MEAN = 0.44  # mean that a dark photograph is brought to
LIMIT = 0.45  # |r| at most; beyond it whatever is not black turns white
HALVINGS = 16  # of the interval [−LIMIT, 0]: the mean is then met to a hundredth of a grey level
GOOD = (0.28, 0.36)  # between these means "dark" fades into "leave unchanged"
SEEN = (1.0, 4.0)  # grey levels of the largest channel between which a pixel ceases to be black
NIGHT = (0.4, 0.7)  # shares of pixels that are not black, between which a night passes into a day
NIGHT_GAIN = 2.0  # as many times its own mean a night may be brought to
BLOCKS = 32  # along either side: a photograph is sampled in 32 × 32 blocks of 16 × 16 pixels
POINTS = slice(4, None, 8)  # pixels along either side of a block whose brightness is looked at
WEAKEST, NOISE_FROM, NOISE_GAIN, STRONGEST = 1.2, 0.3, 10.0, 4.0  # of the filter, in grey levels


def search(points: Tensor) -> Tensor:
    """The number r, (N,) in [−0.45, 0], by bisection.

    points: pixels of photographs, (N, 3, h, w) in [0, 1]. The mean of the enhanced falls as r
    rises, so halving closes in on the r that meets :func:`target_mean`; a photograph that cannot be
    brought so far gets about −0.45, one that is good as it is 0.
    """
    asked, protection = target_mean(points), highlight_protection(points)
    low, high = torch.full_like(asked, -LIMIT), torch.zeros_like(asked)
    for _ in range(HALVINGS):
        r = (low + high) / 2
        curves = (r.view(-1, 1, 1, 1) * protection).expand_as(points)
        reached = apply_curves(points, curves, ITERATIONS).mean(dim=(1, 2, 3))
        low, high = torch.where(reached < asked, low, r), torch.where(reached < asked, r, high)
    dark = asked > points.mean(dim=(1, 2, 3))
    return torch.where(dark, (low + high) / 2, torch.zeros_like(low))


def curve_of(image: Tensor, search: Callable[[Tensor], Tensor] = search) -> tuple[Tensor, Tensor]:
    """The number r in [−0.45, 0] of photographs, and their estimated noise in grey levels, (N,).

    image: (N, 3, H, W) of any size, uint8, uint16, or float in [0, 1]. search: how r is found.
    """
    deep = image.dtype == torch.uint16  # which index_select lacks
    pixels = (image.view(torch.int16) if deep else image).permute(0, 2, 3, 1)
    rows, columns = (block_places(side, image.device) for side in pixels.shape[1:3])
    pixels, starts = pixels.index_select(1, rows.flatten()), columns[:, 0]
    if image.shape[3] < NOISE_BLOCK:
        pixels = pixels.index_select(2, columns.flatten())
        starts = NOISE_BLOCK * torch.arange(BLOCKS, device=image.device)
    pixels, window = pixels.view(image.dtype).flatten(2), (2, 3 * NOISE_BLOCK, 3)
    if image.is_cpu:  # NumPy: for so little, threads would only wait
        blocks = np.float32(pixels.unfold(*window).numpy()[:, :, starts.numpy()])
    else:
        blocks = pixels.to(torch.float32).unfold(*window)[:, :, starts]
    blocks = blocks.reshape(*blocks.shape[:3], NOISE_BLOCK, 3)
    top = 1 if image.is_floating_point() else torch.iinfo(image.dtype).max
    points = torch.as_tensor(blocks)[:, POINTS, :, POINTS].permute(0, 4, 1, 2, 3) / top
    noise = torch.as_tensor(estimate_noise(blocks)) * (255 / top)
    return search(points.reshape(len(image), 3, 2 * BLOCKS, -1)), noise


def render(image: Tensor, r: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Photographs (N, 3, H, W) in [0, 1], r (N,) and noise to filter out (N, 256) → the enhanced
    and their curves, each (N, 3, H, W): r times the filtered photographs' highlight protection.
    """
    image = guided_filter(image, noise.to(image))
    curves = (r.view(-1, 1, 1, 1) * highlight_protection(image)).expand_as(image)
    return apply_curves(image, curves, ITERATIONS), curves


def target_mean(points: Tensor) -> Tensor:
    """The mean (N,) that photographs are to reach, never below their own.

    points: (N, 3, h, w) in [0, 1]. A dark photograph of a day is asked for 0.44; a night, told by
    its share of black pixels, for at most twice its own mean; between means of 0.28 and 0.36, ever
    less is asked, beyond nothing.
    """
    before = points.mean(dim=(1, 2, 3))
    seen = _ramp(255 * points.amax(dim=1), SEEN).mean(dim=(1, 2))
    day = _ramp(seen, NIGHT)
    night_mean = (NIGHT_GAIN * before).clamp_max(TARGET_MEAN)
    asked = torch.maximum(before, day * TARGET_MEAN + (1 - day) * night_mean)
    return torch.lerp(asked, before, _ramp(before, GOOD))


def noise_table(r: Tensor, estimated: Tensor) -> Tensor:
    """Standard deviation to filter out by brightness of the surroundings, (N, 256) in [0, 4/255].

    r: (N,); estimated: (N,), the photograph's noise in grey levels. All of it where the curve
    multiplies brightness by four or more, none where it changes nothing.
    """
    strength = (WEAKEST + NOISE_GAIN * (estimated - NOISE_FROM).clamp_min(0)).clamp_max(STRONGEST)
    grey = torch.arange(256, device=r.device) / 255
    image = grey.view(1, 1, 1, 256).expand(len(r), 3, 1, 256)
    curves = (r.view(-1, 1, 1, 1) * highlight_protection(image)).expand_as(image)
    gain = (apply_curves(image, curves, ITERATIONS)[:, 0, 0] + 0.01) / (grey + 0.01)
    return strength[:, None] / 255 * ((gain - 1) / 3).clamp(0, 1).sqrt()


def block_places(size: int, device: torch.device | None = None) -> Tensor:
    """Where the 32 blocks along a side of ``size`` pixels lie, evenly spaced: (32, 16) int64.

    Blocks overlap where there are fewer than 512 pixels; the outer pixels are repeated below 16.
    """
    start = torch.arange(BLOCKS, device=device) * (size - NOISE_BLOCK) // (BLOCKS - 1)
    return (start[:, None] + torch.arange(NOISE_BLOCK, device=device)).clamp(0, size - 1)


class AutoCurve(nn.Module):
    """The same as a module without weights, for code that runs networks."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] → the enhanced images and their curves, both (N, 3, H, W)."""
        r, noise = curve_of(image)
        return render(image, r, noise_table(r, noise))


def _ramp(x: Tensor, ends: tuple[float, float]) -> Tensor:
    return ((x - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
