"""What is measured: agreement with a reference, bright areas, noise, detail and colour.

Photographs are (H, W, 3) uint8 arrays of one size: ``image`` is what is scored, ``before`` its
input, ``reference`` how it should look. ``metrics.csv`` beside this file defines every figure; NaN
where one is undefined. "Luma" is BT.601, 0.299 R + 0.587 G + 0.114 B, in grey levels (0 – 255).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage, special
from skimage.color import rgb2xyz, xyz2lab
from skimage.metrics import structural_similarity

from zdce.postprocess import LUMA

# Every figure by name: which direction is better, range, unit, what it needs beside the image.
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
        about = f"{name} is {pixels.dtype} {pixels.shape}"
        if pixels.dtype != np.uint8 or pixels.shape != (*image.shape[:2], 3) or not pixels.size:
            raise ValueError(f"{about}, image {image.shape}: give (H, W, 3) uint8 of one size")


def luma(image: np.ndarray) -> np.ndarray:
    """Brightness of ``image`` (…, 3): (…) float64, in the image's own units."""
    return image @ np.array(LUMA)


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
    """Structural similarity, at most 1, by scikit-image's defaults; NaN where a side is below 7."""
    _check(image, reference=reference)
    if min(image.shape[:2]) < 7:
        return float("nan")
    return float(structural_similarity(image, reference, data_range=255, channel_axis=-1))


def match_mean(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``image`` brightened or darkened to the mean of ``reference``, for the mean-matched columns.

    Usual practice ("GT-mean") multiplies by the ratio of the means, and so stays too dark where
    values clip; this is the gain whose clipped result has that mean (ours). Black stays black.
    """
    target, levels = float(reference.mean()), np.arange(256.0)
    counts = np.bincount(image.ravel(), minlength=256)
    low, high = 0.0, 256.0  # a gain of 256 already turns every level but 0 white
    for _ in range(60):
        gain = (low + high) / 2
        reached = counts @ np.minimum(gain * levels, 255) / image.size
        low, high = (gain, high) if reached < target else (low, gain)
    return np.rint(np.minimum(high * levels, 255)).astype(np.uint8)[image]


# --- against the input ----------------------------------------------------------------------------


def _clipped(image: np.ndarray) -> np.ndarray:
    return image.max(axis=2) >= CLIPPED


def clipped_share(image: np.ndarray) -> float:
    """Share of the pixels with any channel at 250 or more, where tones hardly differ."""
    return float(_clipped(image).mean())


def newly_clipped(image: np.ndarray, before: np.ndarray) -> float:
    """Share of pixels clipped in ``image`` and not in its input."""
    return float((_clipped(image) & ~_clipped(before)).mean())


def bright_gain(image: np.ndarray, before: np.ndarray) -> float:
    """Mean luma gained by the input's bright pixels, in grey levels."""
    return _mean((luma(image) - luma(before))[luma(before) >= BRIGHT])


def _spread(image: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation of the values under ``mask``, pooled over channels; NaN for too few."""
    return float(np.sqrt(image[mask].var(axis=0).mean())) if mask.mean() >= LEAST else np.nan


def border(image: np.ndarray) -> float:
    """How much brighter the outermost 4 pixels are than those 8 – 16 from the edge, in per cent."""
    y = luma(image)
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in y.shape)
    distance = np.minimum.outer(down, across)
    strip = y[(distance >= 8) & (distance < 16)]
    return 100 * (_ratio(_mean(y[distance < 4]), _mean(strip)) - 1)


def burst_noise(frames: Sequence[np.ndarray], relative: bool = False) -> float:
    """Noise of a static scene in grey levels: standard deviation (n − 1) over its frames, mean over
    pixels and channels. relative: over the frames' mean, so that brightening changes nothing."""
    if len(frames) < 2:
        raise ValueError(f"frames holds {len(frames)} image(s): noise needs two or more of a scene")
    stack = np.stack(frames).astype(np.float32)
    noise = float(stack.std(axis=0, ddof=1).mean())
    return noise if not relative else _ratio(noise, float(stack.mean()))


def _cells(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each 16×16 patch: means of the 4×4 cells (h, w, 16), deviation inside them (h, w)."""
    h, w = (side // PATCH for side in image.shape[:2])
    blocks = luma(image)[: h * PATCH, : w * PATCH].reshape(h, 4, 4, w, 4, 4)
    blocks = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(h, w, 16, 16)  # patch, cell, pixel
    return blocks.mean(axis=-1), np.sqrt(blocks.var(axis=-1, ddof=1).mean(axis=-1))


def flat_dark(before: np.ndarray) -> np.ndarray:
    """Which 16×16 patches are dark and flat: (H // 16, W // 16) bool.

    The means of 4×4 cells show structure and hardly any noise. Patches whose cells are all uniform
    (blocked-up black) have no noise to measure and are left out.
    """
    means, inner = _cells(before)
    average = means.mean(axis=-1)
    flat = means.std(axis=-1) <= np.maximum(FLAT * average, 0.5)
    return (average < DARK) & flat & (inner > 0)


def dark_noise_gain(image: np.ndarray, before: np.ndarray, relative: bool = False) -> float:
    """How many times noisier the input's flat dark patches became. relative: over their luma."""
    patches, noise = flat_dark(before), []
    for cells, inner in (_cells(image), _cells(before)):
        level = cells[patches].mean() if relative and patches.any() else 1.0
        noise.append(_ratio(inner[patches].sum(), level))
    return _ratio(*noise)


def detail_lost_map(image: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where detail went: (lost, detail), both (H, W) in grey levels, 0 ≤ lost ≤ detail.

    ``detail`` is the local standard deviation of the input's luma (Gaussian window, σ 1.5 pixels).
    Around each pixel a line is fitted from the input's luma to the image's; what its slope lacks to
    1 is lost. Noise that enhancement adds does not follow the input, nor pass as detail.
    """
    local = partial(ndimage.gaussian_filter, sigma=1.5, mode="nearest", truncate=3)
    x, y = luma(before), luma(image)
    mean_x = local(x)
    variance = np.maximum(local(x**2) - mean_x**2, 0)
    slope = (local(x * y) - mean_x * local(y)) / np.maximum(variance, 1e-6)
    detail = np.sqrt(np.where(variance > 1e-6, variance, 0))
    return detail * (1 - np.clip(slope, 0, 1)), detail


def color_cast(image: np.ndarray, before: np.ndarray) -> float:
    """Shift of the mean colour that a change of exposure does not explain, in CIELAB (a*, b*).

    Exposure multiplies linear light: there each pixel of the input is brought to the luminance that
    it has in the image before colours are compared.
    """
    old, new = rgb2xyz(before), rgb2xyz(image)
    exposed = old * (new[..., 1:2] / np.maximum(old[..., 1:2], 1e-9))
    shift = (xyz2lab(new) - xyz2lab(exposed))[..., 1:].reshape(-1, 2).mean(axis=0)
    return float(np.hypot(*shift))


def loe(image: np.ndarray, before: np.ndarray) -> float:
    """Lightness order error: how many sampled pixels change places in brightness with a pixel, on
    average; comparable between photographs of one shape only.

    Source: "Naturalness Preserved Enhancement Algorithm" (Wang et al. 2013), released code.
    """
    step = max(min(image.shape[:2]) // 50, 1)
    widest = (ndimage.maximum_filter(x.max(axis=2), 15, mode="mirror") for x in (before, image))
    old, new = (values[step - 1 :: step, step - 1 :: step].ravel() for values in widest)
    both = np.zeros((257, 257), np.int64)  # pairs with old ≥ a and new ≥ b
    np.add.at(both, (old, new), 1)
    both = both[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    wrong = both[old, 0] + both[0, new] - 2 * both[old, new]
    return float(wrong.sum() / old.size)


# --- without either: NIQE -------------------------------------------------------------------------

# "Making a completely blind image quality analyzer" (Mittal et al. 2013), released code.
NIQE_BLOCK = 96  # pixels
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10.001, 0.001)  # candidates for a distribution's shape
SHAPE_RATIOS = special.gamma(2 / SHAPES) ** 2
SHAPE_RATIOS /= special.gamma(1 / SHAPES) * special.gamma(3 / SHAPES)


def niqe(pixels: np.ndarray, model: dict[str, np.ndarray]) -> float:
    """How unnatural an image looks: its distance from pristine ones; NaN below two blocks of 96×96.

    model: mean and covariance of pristine photographs' 36 features, what ``scipy.io.loadmat`` reads
    of the released ``niqe_modelparameters.mat``. Filters run in single precision, on which
    published scores rest: in double, uniform areas keep crumbs of 1e-14 that count as texture and
    move the score by up to 0.09.
    """
    mean, covariance = model["mu_prisparam"].ravel(), model["cov_prisparam"]
    h, w = (side // NIQE_BLOCK for side in pixels.shape[:2])
    if h * w < 2:
        return float("nan")
    # Y of BT.601 (16 – 235), whole blocks from the top left
    y = np.rint(pixels @ np.array([65481, 128553, 24966]) / 255000 + 16).astype(np.float32)
    y = y[: h * NIQE_BLOCK, : w * NIQE_BLOCK]
    scales = []
    for side in (NIQE_BLOCK, NIQE_BLOCK // 2):
        blocks = _normalised(y).reshape(h, side, w, side).swapaxes(1, 2)
        scales.append([_features(block) for block in blocks.reshape(h * w, side, side)])
        y = _halved(_halved(y).T).T
    features = np.concatenate(scales, axis=1)
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        return float("nan")
    difference = mean - np.nanmean(features, axis=0)
    spread = (covariance + np.cov(complete, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(spread) @ difference))


def _normalised(y: np.ndarray) -> np.ndarray:
    """Y less its local mean, over its local deviation plus 1; Gaussian window of 7×7, σ 7/6."""
    window = partial(ndimage.gaussian_filter, sigma=7 / 6, mode="nearest", radius=3)
    average = window(y)
    return (y - average) / (np.sqrt(np.abs(window(y * y) - average * average)) + 1)


def _halved(y: np.ndarray) -> np.ndarray:
    """Rows (2n, …) → (n, …) by MATLAB's antialiased bicubic, edges mirrored."""
    d = np.abs(np.arange(8) - 3.5) / 2
    taps = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2)
    padded = np.pad(y, ((3, 3), (0, 0)), mode="symmetric")
    taps = (taps / taps.sum()).astype(y.dtype)
    return sum(tap * padded[k : k + len(y) : 2] for k, tap in enumerate(taps))


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right scale of the asymmetric generalised Gaussian that fits ``values``."""
    negative, positive = values[values < 0], values[values > 0]
    left = np.sqrt(np.mean(negative**2)) if negative.size else np.nan
    right = np.sqrt(np.mean(positive**2)) if positive.size else np.nan
    skew, both = left / right, negative.size and positive.size
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2) if both else np.nan
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.argmin((SHAPE_RATIOS - ratio) ** 2)]
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * scale, right * scale


def _features(block: np.ndarray) -> list[float]:
    """18 of one normalised block: its distribution, and that of products with four neighbours."""
    shape, left, right = _fit(block)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = _fit(block * np.roll(block, shift, axis=(0, 1)))
        centre = (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
        features += [shape, centre, left, right]
    return features


# --- all of them ----------------------------------------------------------------------------------


def scores(
    image: np.ndarray,
    before: np.ndarray,
    reference: np.ndarray | None = None,
    niqe_model: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Every figure of :data:`METRICS` that one enhanced photograph allows, by name: those that need
    a reference, or NIQE's model, where these are given."""
    _check(image, before=before)
    row = {} if reference is None else agreement(image, reference)
    of_both = (newly_clipped, bright_gain, dark_noise_gain, color_cast, loe)
    row |= {figure.__name__: figure(image, before) for figure in of_both}
    row |= {figure.__name__: figure(image) for figure in (clipped_share, border)}
    row |= {"mean": float(image.mean() / 255)}
    row["dark_noise_gain_relative"] = dark_noise_gain(image, before, relative=True)
    dark, bright = luma(before) < DARK, luma(before) >= BRIGHT
    row |= {"dark_spread": _spread(image, dark), "bright_spread": _spread(image, bright)}
    row["bright_clipped"] = _mean((_clipped(image) & ~_clipped(before))[bright])
    lost, detail = detail_lost_map(image, before)
    row["detail_kept"] = 1 - _ratio(lost.sum(), detail.sum())
    row["bright_detail_kept"] = 1 - _ratio(lost[bright].sum(), detail[bright].sum())
    row |= {} if niqe_model is None else {"niqe": niqe(image, niqe_model)}
    return {name: row[name] for name in METRICS.index if name in row}


def agreement(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The figures that need a reference, and the mean: the cheap part of :func:`scores`."""
    row = {figure.__name__: figure(image, reference) for figure in (psnr, ssim, mae)}
    matched = match_mean(image, reference)
    row |= {f"{figure.__name__}_matched": figure(matched, reference) for figure in (psnr, ssim)}
    return row | {"mean": float(image.mean() / 255)}


def burst_scores(after: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures that need a burst; both hold the frames of a static scene, enhanced and not."""
    noise, relative = burst_noise(after), burst_noise(after, relative=True)
    row = {"burst_noise": noise, "relative_noise": relative}
    row["noise_gain"] = _ratio(noise, burst_noise(before))
    return row | {"noise_gain_relative": _ratio(relative, burst_noise(before, relative=True))}
