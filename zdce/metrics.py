"""What is measured: agreement with a reference, and what enhancement does to bright areas, noise,
detail and colour.

Photographs are (H, W, 3) uint8 arrays, or :class:`Photograph` around one, which remembers what
several figures read of it. ``metrics.csv`` beside this file defines every figure; :func:`scores`
computes those that one photograph and its input allow. "Luma" is BT.601, 0.299 R + 0.587 G +
0.114 B, in grey levels (0 – 255).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.color import xyz2lab
from skimage.color.colorconv import xyz_from_rgb
from skimage.metrics import structural_similarity

from zdce.niqe import NiqeModel, niqe
from zdce.postprocess import LUMA

# Every figure by name: direction (what is better: higher, lower, nearer 0 or –), range, unit, what
# it needs beside the image (nothing, input, reference, burst, model file), definition.
METRICS = pd.read_csv(Path(__file__).with_suffix(".csv"), index_col="name", keep_default_na=False)
VERSION = 1  # of all figures; kept scores name it, and whatever changes a value raises it
# Grey levels, ours. The curve fixes 255 and piles bright tones up just below it; 0.6 is the
# exposure loss's target, above which nothing needed light.
CLIPPED, BRIGHT, DARK = 250, 153, 50
LEAST = 0.01  # ours: share of a photograph that must be dark (bright) for its tones to count
PATCH = 16  # pixels, ours: side of a flat dark patch, made of 4×4 cells of 4×4 pixels
FLAT = 0.1  # ours: spread of a flat patch's 16 cell means, over its mean; or half a level
FRAME, INSIDE = 4, (8, 16)  # pixels from the edge, ours: a border, and the strip it is compared to
_LEVELS = np.arange(256) / 255
_LINEAR = np.where(_LEVELS > 0.04045, ((_LEVELS + 0.055) / 1.055) ** 2.4, _LEVELS / 12.92)  # sRGB


class Photograph:
    """An (H, W, 3) uint8 image and what figures read of it, each worked out once.

    Where many results are scored against one input, the input's share of the work is done once.
    name: for messages. Raises ValueError for another kind of array.
    """

    def __init__(self, pixels: np.ndarray, name: str = "image") -> None:
        shape, kind = getattr(pixels, "shape", ()), getattr(pixels, "dtype", type(pixels).__name__)
        if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"{name} is {kind} {shape}: give an (H, W, 3) uint8 array with pixels")
        self.pixels, self.shape = pixels, shape

    @cached_property
    def luma(self) -> np.ndarray:
        return luma(self.pixels)

    @cached_property
    def peak(self) -> np.ndarray:
        """Largest channel, (H, W) uint8."""
        red, green, blue = np.moveaxis(self.pixels, -1, 0)
        return np.maximum(np.maximum(red, green), blue)

    @property
    def clipped(self) -> np.ndarray:
        """Pixels with any channel at 250 or more, where tones hardly differ: (H, W) bool."""
        return self.peak >= CLIPPED

    @property
    def bright(self) -> np.ndarray:
        return self.luma >= BRIGHT

    @property
    def dark(self) -> np.ndarray:
        return self.luma < DARK

    @cached_property
    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of the 4×4 cells of each 16×16 patch, (h, w, 16), and the standard deviation inside
        cells, pooled, (h, w)."""
        h, w = (side // PATCH for side in self.shape[:2])
        blocks = self.luma[: h * PATCH, : w * PATCH].reshape(h, 4, 4, w, 4, 4)
        blocks = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(h, w, 16, 16)  # patch, cell, pixel
        return blocks.mean(axis=-1), np.sqrt(blocks.var(axis=-1, ddof=1).mean(axis=-1))

    @cached_property
    def flat_dark(self) -> np.ndarray:
        """Top left corners (row, column) of the flat dark 16×16 patches, on a grid: (n, 2) int.

        Dark: mean luma below 50. Flat: the means of the sixteen 4×4 cells, which show structure and
        hardly any noise, deviate by at most a tenth of the patch's mean, or half a level. Patches
        whose cells are all uniform (blocked-up black) have no noise to measure and are left out.
        """
        means, inner = self.cells
        average = means.mean(axis=-1)
        flat = means.std(axis=-1) <= np.maximum(FLAT * average, 0.5)
        return np.argwhere((average < DARK) & flat & (inner > 0)) * PATCH

    @cached_property
    def window(self) -> tuple[np.ndarray, np.ndarray]:
        """Local mean and variance of luma."""
        average = _window(self.luma)
        return average, np.maximum(_window(self.luma**2) - average**2, 0)

    @cached_property
    def xyz(self) -> np.ndarray:
        return _LINEAR[self.pixels] @ xyz_from_rgb.T

    @cached_property
    def lightness(self) -> np.ndarray:
        """What :func:`loe` compares: the largest channel, its maximum over 15×15 pixels, at every
        (shorter side // 50)-th pixel."""
        step = max(min(self.shape[:2]) // 50, 1)
        widest = ndimage.maximum_filter(self.peak, size=15, mode="mirror")
        return widest[step - 1 :: step, step - 1 :: step].ravel()


Image = np.ndarray | Photograph


def _seen(image: Image, name: str = "image") -> Photograph:
    return image if isinstance(image, Photograph) else Photograph(image, name)


def _pair(image: Image, other: Image, name: str) -> tuple[Photograph, Photograph]:
    image, other = _seen(image), _seen(other, name)
    if image.shape != other.shape:
        raise ValueError(f"image is {image.shape}, {name} {other.shape}: they must have one size")
    return image, other


def luma(image: np.ndarray) -> np.ndarray:
    """Brightness of ``image`` (…, 3): (…) float64, in the image's own units."""
    return image @ np.array(LUMA)


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


# --- against a reference --------------------------------------------------------------------------


def _errors(image: Image, reference: Image) -> np.ndarray:
    """How many values are off by 0, 1, … 255 grey levels."""
    image, reference = _pair(image, reference, "reference")
    a, b = image.pixels.ravel(), reference.pixels.ravel()
    return np.bincount(np.maximum(a, b) - np.minimum(a, b), minlength=256)


def psnr(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio in dB, over all channels; infinite where both are equal."""
    counts = _errors(image, reference)
    squares = counts @ np.arange(256) ** 2
    return float(10 * np.log10(255**2 * counts.sum() / squares)) if squares else float("inf")


def mae(image: Image, reference: Image) -> float:
    """Mean absolute error in grey levels per channel (the paper sums three channels)."""
    counts = _errors(image, reference)
    return float(counts @ np.arange(256) / counts.sum())


def ssim(image: Image, reference: Image) -> float:
    """Structural similarity, at most 1, mean over channels, by scikit-image's defaults (uniform 7×7
    windows that lie within the image); NaN where a side is below 7 pixels."""
    image, reference = _pair(image, reference, "reference")
    if min(image.shape[:2]) < 7:
        return float("nan")
    pair = image.pixels, reference.pixels
    return float(structural_similarity(*pair, data_range=255, channel_axis=-1))


def mean(image: Image) -> float:
    """Mean over pixels and channels, in [0, 1]."""
    return float(_seen(image).pixels.mean() / 255)


def match_mean(image: Image, reference: Image) -> np.ndarray:
    """``image`` brightened or darkened to the mean of ``reference``, for the mean-matched columns.

    One gain multiplies the 8-bit values of all channels; the product is clipped at 255 and rounded.
    Usual practice ("GT-mean") takes the ratio of the means, and so stays too dark where values
    clip; here the gain is the one whose clipped result has the reference's mean (ours). A black
    image has no such gain and returns as it is.
    """
    pixels, target = _seen(image).pixels, float(_seen(reference, "reference").pixels.mean())
    counts, levels = np.bincount(pixels.ravel(), minlength=256), np.arange(256.0)
    low, high = 0.0, 256.0  # a gain of 256 already turns every level but 0 white
    for _ in range(60):
        gain = (low + high) / 2
        reached = counts @ np.minimum(gain * levels, 255) / pixels.size
        low, high = (gain, high) if reached < target else (low, gain)
    table = np.minimum(high * levels, 255) if counts[1:].any() else levels
    return np.rint(table).astype(np.uint8)[pixels]


# --- bright and dark areas ------------------------------------------------------------------------


def clipped_share(image: Image) -> float:
    """Share of the pixels with any channel at 250 or more, in [0, 1]."""
    return float(_seen(image).clipped.mean())


def newly_clipped(image: Image, before: Image) -> float:
    """Share of pixels clipped in ``image`` and not in its input ``before``, in [0, 1]."""
    image, before = _pair(image, before, "before")
    return float((image.clipped & ~before.clipped).mean())


def bright_gain(image: Image, before: Image) -> float:
    """Mean luma gained, in grey levels, by the input's bright pixels (luma of 153 = 0.6·255 or
    more); NaN where it has none."""
    image, before = _pair(image, before, "before")
    return _mean((image.luma - before.luma)[before.bright])


def bright_clipped(image: Image, before: Image) -> float:
    """Share of the input's bright pixels that are clipped in ``image`` and were not before, in
    [0, 1]; NaN where it has none."""
    image, before = _pair(image, before, "before")
    return _mean((image.clipped & ~before.clipped)[before.bright])


def tone_spread(image: Image, before: Image, tones: str) -> float:
    """Contrast among the input's ``"dark"`` (luma below 50) or ``"bright"`` pixels: standard
    deviation of their values in ``image``, grey levels, pooled over channels.

    NaN where less than 1 % of the photograph is dark (bright).
    """
    image, before = _pair(image, before, "before")
    mask = getattr(before, tones)
    if mask.mean() < LEAST or not mask.any():
        return float("nan")
    values = image.pixels.reshape(-1, 3).take(np.flatnonzero(mask), axis=0)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in values.T]) / len(values)
    levels = np.arange(256)
    return float(np.sqrt((counts @ levels**2 - (counts @ levels) ** 2).mean()))


def border(image: Image) -> float:
    """How much brighter the outermost 4 pixels are than the strip 8 – 16 pixels from the edge, in
    per cent of the strip's luma; NaN where there is no strip, or only black in it."""
    y = _seen(image).luma
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in y.shape)
    distance = np.minimum.outer(down, across)
    strip = y[(distance >= INSIDE[0]) & (distance < INSIDE[1])]
    return 100 * (_ratio(_mean(y[distance < FRAME]), _mean(strip)) - 1)


# --- noise ----------------------------------------------------------------------------------------


def burst_noise(frames: Sequence[np.ndarray], relative: bool = False) -> float:
    """Noise of a static scene: standard deviation (n − 1) over its frames, mean over pixels and
    channels, in grey levels.

    frames: two or more images of one scene. relative: divided by the frames' mean, so that
    brightening alone changes nothing (NaN where all are black).
    """
    if len(frames) < 2:
        raise ValueError(f"frames holds {len(frames)} image(s): noise needs two or more of a scene")
    stack = np.stack(frames).astype(np.float32)
    noise = float(stack.std(axis=0, ddof=1).mean())
    return noise if not relative else _ratio(noise, float(stack.mean()))


def dark_noise_gain(image: Image, before: Image, relative: bool = False) -> float:
    """How many times noisier the input's flat dark patches became; 1 leaves them as they were.

    Noise: standard deviation of luma around the mean of each 4×4 cell. relative: divided by the
    patches' mean luma. NaN where the input has no such patch.
    """
    image, before = _pair(image, before, "before")
    rows, columns = (before.flat_dark // PATCH).T
    noise = []
    for cells, inner in (image.cells, before.cells):
        level = cells[rows, columns].mean() if relative and len(rows) else 1.0
        noise.append(_ratio(inner[rows, columns].sum(), level))
    return _ratio(*noise)


# --- detail, colour, order ------------------------------------------------------------------------


def _window(values: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(values, 1.5, mode="nearest", truncate=3)


def detail_lost_map(image: Image, before: Image) -> tuple[np.ndarray, np.ndarray]:
    """Where detail went: (lost, detail), both (H, W) in grey levels, 0 ≤ lost ≤ detail.

    ``detail`` is the local standard deviation of the input's luma (Gaussian window, σ 1.5 pixels).
    Around each pixel a line is fitted from the input's luma to the image's; its slope is what
    became of the local contrast, and the part of a slope below 1 is lost: nothing where contrast
    was kept or raised, all of it where the image is flat. Noise that enhancement adds does not
    follow the input and so does not pass as detail.
    """
    image, before = _pair(image, before, "before")
    mean_x, variance = before.window
    covariance = _window(before.luma * image.luma) - mean_x * _window(image.luma)
    detail = np.sqrt(np.where(variance > 1e-6, variance, 0))
    slope = covariance / np.maximum(variance, 1e-6)
    return detail * (1 - np.clip(slope, 0, 1)), detail


def detail_kept(image: Image, before: Image) -> float:
    """Share of the input's local contrast that survives, in [0, 1], by :func:`detail_lost_map`: 1
    for any brightening that nowhere compresses tones. Contrast raised in one place does not make up
    for contrast lost in another. NaN where the input is uniform."""
    lost, detail = detail_lost_map(image, before)
    return 1 - _ratio(lost.sum(), detail.sum())


def color_cast(image: Image, before: Image) -> float:
    """Shift of the mean colour that a change of exposure does not explain, in CIELAB (a*, b*).

    Exposure multiplies linear light. So every pixel of the input is brought in linear light to the
    luminance that it has in the image; its a*, b* are taken from the image's, and the result is the
    length of the mean of these differences. A tint counts, and so does the fading of a colour.
    """
    image, before = _pair(image, before, "before")
    old, new = before.xyz, image.xyz
    exposed = old * (new[..., 1:2] / np.maximum(old[..., 1:2], 1e-9))
    shift = (xyz2lab(new) - xyz2lab(exposed))[..., 1:].reshape(-1, 2).mean(axis=0)
    return float(np.hypot(*shift))


def loe(image: Image, before: Image) -> float:
    """Lightness order error: how many of the sampled pixels, on average, change places in
    brightness with a pixel; comparable between photographs of one shape only.

    Source: "Naturalness Preserved Enhancement Algorithm" (Wang et al. 2013), its released code.
    """
    image, before = _pair(image, before, "before")
    old, new = before.lightness, image.lightness
    both = np.zeros((257, 257), np.int64)  # pairs with old ≥ a and new ≥ b
    np.add.at(both, (old, new), 1)
    both = both[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    wrong = both[old, 0] + both[0, new] - 2 * both[old, new]
    return float(wrong.sum() / old.size)


# --- all of them ----------------------------------------------------------------------------------


def scores(
    image: Image,
    before: Image,
    reference: Image | None = None,
    niqe_model: NiqeModel | None = None,
) -> dict[str, float]:
    """Every figure of :data:`METRICS` that one enhanced photograph allows, by name.

    image, before (its input), reference: of one size. Without ``reference`` the figures that need
    one are left out, and NIQE without its model. NaN where a figure is undefined.
    """
    image, before = _pair(image, before, "before")
    row = agreement(image, reference) if reference is not None else {"mean": mean(image)}
    row["clipped_share"] = clipped_share(image)
    row |= {f.__name__: f(image, before) for f in (newly_clipped, bright_gain, bright_clipped)}
    row |= {f"{tones}_spread": tone_spread(image, before, tones) for tones in ("dark", "bright")}
    row |= {"border": border(image), "dark_noise_gain": dark_noise_gain(image, before)}
    row["dark_noise_gain_relative"] = dark_noise_gain(image, before, relative=True)
    lost, detail = detail_lost_map(image, before)
    row["detail_kept"] = 1 - _ratio(lost.sum(), detail.sum())
    bright = before.bright
    row["bright_detail_kept"] = 1 - _ratio(lost[bright].sum(), detail[bright].sum())
    row |= {f.__name__: f(image, before) for f in (color_cast, loe)}
    return row if niqe_model is None else row | {"niqe": niqe(image.pixels, niqe_model)}


def agreement(image: Image, reference: Image) -> dict[str, float]:
    """The figures that need a reference, and the mean: the cheap part of :func:`scores`."""
    image, reference = _pair(image, reference, "reference")
    matched = Photograph(match_mean(image, reference))
    row = {f.__name__: f(image, reference) for f in (psnr, ssim, mae)}
    row |= {f"{f.__name__}_matched": f(matched, reference) for f in (psnr, ssim)}
    return row | {"mean": mean(image)}


def burst_scores(after: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures that need a burst; both hold the frames of a static scene, enhanced and not."""
    noise, relative = burst_noise(after), burst_noise(after, relative=True)
    row = {"burst_noise": noise, "relative_noise": relative}
    row["noise_gain"] = _ratio(noise, burst_noise(before))
    return row | {"noise_gain_relative": _ratio(relative, burst_noise(before, relative=True))}
