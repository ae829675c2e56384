"""What is measured: agreement with a reference, and what enhancement does to bright areas, noise,
detail and colour.

Photographs are (H, W, 3) uint8 arrays: ``image`` is what is scored, ``before`` its input,
``reference`` how it should look; they have one size. ``metrics.csv`` beside this file defines every
figure; :func:`scores` computes those that one photograph and its input allow. "Luma" is BT.601,
0.299 R + 0.587 G + 0.114 B, in grey levels (0 – 255).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.color import rgb2xyz, xyz2lab
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


def _check(image: np.ndarray, **others: np.ndarray) -> None:
    """ValueError unless all are (H, W, 3) uint8 of one size."""
    for name, pixels in {"image": image, **others}.items():
        shape, kind = getattr(pixels, "shape", ()), getattr(pixels, "dtype", type(pixels).__name__)
        if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"{name} is {kind} {shape}: give an (H, W, 3) uint8 array with pixels")
        if shape != image.shape:
            raise ValueError(f"image is {image.shape}, {name} {shape}: they must have one size")


def luma(image: np.ndarray) -> np.ndarray:
    """Brightness of ``image`` (…, 3): (…) float64, in the image's own units."""
    return image @ np.array(LUMA)


def _bright(before: np.ndarray) -> np.ndarray:
    return luma(before) >= BRIGHT


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


# --- against a reference --------------------------------------------------------------------------


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over all channels; infinite where both are equal."""
    _check(image, reference=reference)
    error = np.square(image.astype(float) - reference).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def mae(image: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute error in grey levels per channel (the paper sums three channels)."""
    _check(image, reference=reference)
    return float(np.abs(image.astype(float) - reference).mean())


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity, at most 1, mean over channels, by scikit-image's defaults (uniform 7×7
    windows that lie within the image); NaN where a side is below 7 pixels."""
    _check(image, reference=reference)
    if min(image.shape[:2]) < 7:
        return float("nan")
    return float(structural_similarity(image, reference, data_range=255, channel_axis=-1))


def mean(image: np.ndarray) -> float:
    """Mean over pixels and channels, in [0, 1]."""
    _check(image)
    return float(image.mean() / 255)


def match_mean(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``image`` brightened or darkened to the mean of ``reference``, for the mean-matched columns.

    One gain multiplies the 8-bit values of all channels; the product is clipped at 255 and rounded.
    Usual practice ("GT-mean") takes the ratio of the means, and so stays too dark where values
    clip; here the gain is the one whose clipped result has the reference's mean (ours). A black
    image has no such gain and returns as it is.
    """
    target, levels = float(reference.mean()), np.arange(256.0)
    counts = np.bincount(image.ravel(), minlength=256)
    low, high = 0.0, 256.0  # a gain of 256 already turns every level but 0 white
    for _ in range(60):
        gain = (low + high) / 2
        reached = counts @ np.minimum(gain * levels, 255) / image.size
        low, high = (gain, high) if reached < target else (low, gain)
    table = np.minimum(high * levels, 255) if counts[1:].any() else levels
    return np.rint(table).astype(np.uint8)[image]


# --- bright and dark areas ------------------------------------------------------------------------


def _clipped(image: np.ndarray) -> np.ndarray:
    return image.max(axis=2) >= CLIPPED


def clipped_share(image: np.ndarray) -> float:
    """Share of the pixels with any channel at 250 or more, where tones hardly differ."""
    _check(image)
    return float(_clipped(image).mean())


def newly_clipped(image: np.ndarray, before: np.ndarray) -> float:
    """Share of pixels clipped in ``image`` and not in its input."""
    _check(image, before=before)
    return float((_clipped(image) & ~_clipped(before)).mean())


def bright_gain(image: np.ndarray, before: np.ndarray) -> float:
    """Mean luma gained by the input's bright pixels, in grey levels; NaN where it has none."""
    _check(image, before=before)
    return _mean((luma(image) - luma(before))[_bright(before)])


def _spread(image: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation of the values under ``mask``, pooled over channels; NaN for too few."""
    if mask.mean() < LEAST or not mask.any():
        return float("nan")
    return float(np.sqrt(image[mask].var(axis=0).mean()))


def border(image: np.ndarray) -> float:
    """How much brighter the outermost 4 pixels are than the strip 8 – 16 pixels from the edge, in
    per cent of the strip's luma; NaN where there is no strip, or only black in it."""
    _check(image)
    y = luma(image)
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in y.shape)
    distance = np.minimum.outer(down, across)
    strip = y[(distance >= 8) & (distance < 16)]
    return 100 * (_ratio(_mean(y[distance < 4]), _mean(strip)) - 1)


# --- noise ----------------------------------------------------------------------------------------


def burst_noise(frames: Sequence[np.ndarray], relative: bool = False) -> float:
    """Noise of a static scene: standard deviation (n − 1) over its two or more frames, mean over
    pixels and channels, in grey levels. relative: divided by the frames' mean, so that brightening
    alone changes nothing (NaN where all are black)."""
    if len(frames) < 2:
        raise ValueError(f"frames holds {len(frames)} image(s): noise needs two or more of a scene")
    stack = np.stack(frames).astype(np.float32)
    noise = float(stack.std(axis=0, ddof=1).mean())
    return noise if not relative else _ratio(noise, float(stack.mean()))


def _cells(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the 4×4 cells of each 16×16 patch, (h, w, 16), and the standard deviation of luma
    inside cells, pooled, (h, w)."""
    h, w = (side // PATCH for side in image.shape[:2])
    blocks = luma(image)[: h * PATCH, : w * PATCH].reshape(h, 4, 4, w, 4, 4)
    blocks = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(h, w, 16, 16)  # patch, cell, pixel
    return blocks.mean(axis=-1), np.sqrt(blocks.var(axis=-1, ddof=1).mean(axis=-1))


def flat_dark(before: np.ndarray) -> np.ndarray:
    """Which patches of a grid of 16×16 pixels are flat and dark: (H // 16, W // 16) bool.

    Dark: mean luma below 50. Flat: the means of the sixteen 4×4 cells, which show structure and
    hardly any noise, deviate by at most a tenth of the patch's mean, or half a level. Patches whose
    cells are all uniform (blocked-up black) have no noise to measure and are left out.
    """
    means, inner = _cells(before)
    average = means.mean(axis=-1)
    flat = means.std(axis=-1) <= np.maximum(FLAT * average, 0.5)
    return (average < DARK) & flat & (inner > 0)


def dark_noise_gain(image: np.ndarray, before: np.ndarray, relative: bool = False) -> float:
    """How many times noisier the input's flat dark patches became, by the standard deviation of
    luma around the mean of each 4×4 cell; NaN where it has none. relative: divided by the patches'
    mean luma."""
    _check(image, before=before)
    patches, noise = flat_dark(before), []
    for cells, inner in (_cells(image), _cells(before)):
        level = cells[patches].mean() if relative and patches.any() else 1.0
        noise.append(_ratio(inner[patches].sum(), level))
    return _ratio(*noise)


# --- detail, colour, order ------------------------------------------------------------------------


def detail_lost_map(image: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where detail went: (lost, detail), both (H, W) in grey levels, 0 ≤ lost ≤ detail.

    ``detail`` is the local standard deviation of the input's luma (Gaussian window, σ 1.5 pixels).
    Around each pixel a line is fitted from the input's luma to the image's; its slope is what
    became of the local contrast, and the part of a slope below 1 is lost: nothing where contrast
    was kept or raised, all of it where the image is flat. Noise that enhancement adds does not
    follow the input and so does not pass as detail.
    """

    def local(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1.5, mode="nearest", truncate=3)

    _check(image, before=before)
    x, y = luma(before), luma(image)
    mean_x = local(x)
    variance = np.maximum(local(x**2) - mean_x**2, 0)
    slope = (local(x * y) - mean_x * local(y)) / np.maximum(variance, 1e-6)
    detail = np.sqrt(np.where(variance > 1e-6, variance, 0))
    return detail * (1 - np.clip(slope, 0, 1)), detail


def detail_kept(image: np.ndarray, before: np.ndarray) -> float:
    """Share of the input's local contrast that survives, by :func:`detail_lost_map`; what is raised
    in one place does not make up for what is lost in another. NaN where the input is uniform."""
    lost, detail = detail_lost_map(image, before)
    return 1 - _ratio(lost.sum(), detail.sum())


def color_cast(image: np.ndarray, before: np.ndarray) -> float:
    """Shift of the mean colour that a change of exposure does not explain, in CIELAB (a*, b*).

    Exposure multiplies linear light. So every pixel of the input is brought in linear light to the
    luminance that it has in the image before colours are compared. A tint counts, and so does the
    fading of a colour.
    """
    _check(image, before=before)
    old, new = rgb2xyz(before), rgb2xyz(image)
    exposed = old * (new[..., 1:2] / np.maximum(old[..., 1:2], 1e-9))
    shift = (xyz2lab(new) - xyz2lab(exposed))[..., 1:].reshape(-1, 2).mean(axis=0)
    return float(np.hypot(*shift))


def loe(image: np.ndarray, before: np.ndarray) -> float:
    """Lightness order error: how many of the sampled pixels, on average, change places in
    brightness with a pixel; comparable between photographs of one shape only.

    Brightness: the largest channel, its maximum over 15×15 pixels, at every (shorter side // 50)-th
    pixel. Source: "Naturalness Preserved Enhancement Algorithm" (Wang et al. 2013), released code.
    """
    _check(image, before=before)
    step = max(min(image.shape[:2]) // 50, 1)
    widest = (ndimage.maximum_filter(x.max(axis=2), 15, mode="mirror") for x in (before, image))
    old, new = (values[step - 1 :: step, step - 1 :: step].ravel() for values in widest)
    both = np.zeros((257, 257), np.int64)  # pairs with old ≥ a and new ≥ b
    np.add.at(both, (old, new), 1)
    both = both[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    wrong = both[old, 0] + both[0, new] - 2 * both[old, new]
    return float(wrong.sum() / old.size)


# --- all of them ----------------------------------------------------------------------------------


def scores(
    image: np.ndarray,
    before: np.ndarray,
    reference: np.ndarray | None = None,
    niqe_model: NiqeModel | None = None,
) -> dict[str, float]:
    """Every figure of :data:`METRICS` that one enhanced photograph allows, by name.

    Without ``reference`` the figures that need one are left out, and NIQE without its model. NaN
    where a figure is undefined. Raises ValueError unless all are (H, W, 3) uint8 of one size.
    """
    row = agreement(image, reference) if reference is not None else {"mean": mean(image)}
    row |= {"clipped_share": clipped_share(image), "newly_clipped": newly_clipped(image, before)}
    bright, new = _bright(before), _clipped(image) & ~_clipped(before)
    row |= {"bright_gain": bright_gain(image, before), "bright_clipped": _mean(new[bright])}
    row["dark_spread"] = _spread(image, luma(before) < DARK)
    row |= {"bright_spread": _spread(image, bright), "border": border(image)}
    row["dark_noise_gain"] = dark_noise_gain(image, before)
    row["dark_noise_gain_relative"] = dark_noise_gain(image, before, relative=True)
    lost, detail = detail_lost_map(image, before)
    row["detail_kept"] = 1 - _ratio(lost.sum(), detail.sum())
    row["bright_detail_kept"] = 1 - _ratio(lost[bright].sum(), detail[bright].sum())
    row |= {"color_cast": color_cast(image, before), "loe": loe(image, before)}
    return row if niqe_model is None else row | {"niqe": niqe(image, niqe_model)}


def agreement(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The figures that need a reference, and the mean: the cheap part of :func:`scores`."""
    row = {figure.__name__: figure(image, reference) for figure in (psnr, ssim, mae)}
    matched = match_mean(image, reference)
    row |= {f"{figure.__name__}_matched": figure(matched, reference) for figure in (psnr, ssim)}
    return row | {"mean": mean(image)}


def burst_scores(after: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures that need a burst; both hold the frames of a static scene, enhanced and not."""
    noise, relative = burst_noise(after), burst_noise(after, relative=True)
    row = {"burst_noise": noise, "relative_noise": relative}
    row["noise_gain"] = _ratio(noise, burst_noise(before))
    return row | {"noise_gain_relative": _ratio(relative, burst_noise(before, relative=True))}
