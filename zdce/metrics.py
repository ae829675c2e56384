"""What is measured: agreement with a reference, and what enhancement does to bright areas, noise, detail and colour.

Photographs are (H, W, 3) uint8 arrays throughout. :data:`METRICS` lists every figure with its direction, range and
definition, and :func:`scores` computes those that one photograph and its input allow. "Luma" is BT.601,
0.299 R + 0.587 G + 0.114 B, in grey levels (0 – 255).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import io, ndimage, special
from skimage.color import rgb2xyz, xyz2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

CLIPPED = 250  # grey levels; ours: the curve fixes 255 and piles bright tones up just below it, so 255 alone sees nothing
BRIGHT = 153  # grey levels; ours: the exposure loss's target of 0.6, above which there was nothing to brighten
DARK = 50  # grey levels; ours: what counts as a dark patch
PATCH = 16  # pixels; ours: side of a flat dark patch, made of 4×4 cells of 4×4 pixels
FLAT = 0.1  # ours: in a flat patch the 16 cell means spread by at most this share of the patch's mean, or half a level
NIQE_BLOCK = 96  # pixels; NIQE's released code
LUMA = np.array([0.299, 0.587, 0.114])


def _check(array: np.ndarray, name: str) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}: give an (H, W, 3) uint8 array with pixels in it"
        )


def _pair(image: np.ndarray, other: np.ndarray, name: str) -> None:
    _check(image, "image")
    _check(other, name)
    if image.shape != other.shape:
        raise ValueError(
            f"image is {image.shape} and {name} {other.shape}: both must have one size"
        )


def luma(image: np.ndarray) -> np.ndarray:
    """Brightness of ``image`` (…, 3): (…) float64, BT.601, in the image's own units (grey levels for uint8)."""
    return image @ LUMA


# ------------------------------------------------------------------------------------------- against a reference


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two (H, W, 3) uint8 images in dB, over all channels; infinite where equal."""
    _pair(image, reference, "reference")
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(reference, image, data_range=255))


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity of two (H, W, 3) uint8 images, at most 1, mean over channels.

    Source: scikit-image's defaults, a uniform 7×7 window. NaN where a side is shorter than the window.
    """
    _pair(image, reference, "reference")
    if min(image.shape[:2]) < 7:
        return float("nan")
    return float(structural_similarity(reference, image, data_range=255, channel_axis=-1))


def mae(image: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute error of two (H, W, 3) uint8 images in grey levels per channel (the paper sums three channels)."""
    _pair(image, reference, "reference")
    return float(np.abs(image.astype(np.int16) - reference).mean())


def mean(image: np.ndarray) -> float:
    """Mean of an (H, W, 3) uint8 image over pixels and channels, in [0, 1]."""
    _check(image, "image")
    return float(image.mean() / 255)


def match_mean(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``image`` (H, W, 3) uint8 brightened or darkened to the mean of ``reference``, for the mean-matched columns.

    One gain multiplies the 8-bit values of all three channels; the product is clipped at 255 and rounded. Usual
    practice ("GT-mean") takes the ratio of the means as the gain, and so stays too dark wherever values clip; here the
    gain is the one whose clipped result has the reference's mean (ours). The two differ only where something clips.
    A black image has no such gain and returns as it is.
    """
    _check(image, "image")
    _check(reference, "reference")
    counts = np.bincount(image.ravel(), minlength=256)
    levels = np.arange(256.0)
    target = float(reference.mean())
    low, high = 0.0, 256.0  # a gain of 256 already turns every level but 0 white
    for _ in range(60):
        gain = (low + high) / 2
        reached = counts @ np.minimum(gain * levels, 255) / image.size
        low, high = (gain, high) if reached < target else (low, gain)
    table = np.minimum(high * levels, 255) if counts[1:].any() else levels
    return np.rint(table).astype(np.uint8)[image]


# ---------------------------------------------------------------------------------------------------- bright areas


def clipped_mask(image: np.ndarray) -> np.ndarray:
    """Pixels of an (H, W, 3) uint8 image with any channel at 250 or more, where tones hardly differ: (H, W) bool."""
    _check(image, "image")
    return image.max(axis=-1) >= CLIPPED


def clipped_share(image: np.ndarray) -> float:
    """Share of the pixels of an (H, W, 3) uint8 image with any channel at 250 or more, in [0, 1]."""
    return float(clipped_mask(image).mean())


def newly_clipped(image: np.ndarray, before: np.ndarray) -> float:
    """Share of pixels clipped in ``image`` and not in its input ``before``, both (H, W, 3) uint8: in [0, 1]."""
    _pair(image, before, "before")
    return float((clipped_mask(image) & ~clipped_mask(before)).mean())


def bright_gain(image: np.ndarray, before: np.ndarray) -> float:
    """Mean luma gained, in grey levels, over the pixels that were bright before (luma of 153 = 0.6·255 or more).

    image, before: (H, W, 3) uint8. NaN where the input has no such pixel.
    """
    _pair(image, before, "before")
    old = luma(before)
    bright = old >= BRIGHT
    return float((luma(image) - old)[bright].mean()) if bright.any() else float("nan")


# ----------------------------------------------------------------------------------------------------------- noise


def burst_noise(frames: Sequence[np.ndarray], relative: bool = False) -> float:
    """Noise of a static scene: standard deviation over its frames, mean over pixels and channels, in grey levels.

    frames: two or more (H, W, 3) uint8 images of one scene; the deviation is the sample's (n − 1). ``relative``
    divides it by the frames' mean, so that brightening alone changes nothing (NaN where all are black).
    """
    if len(frames) < 2:
        raise ValueError(
            f"frames holds {len(frames)} image(s): noise needs two or more of one scene"
        )
    stack = np.stack(frames).astype(np.float32)
    noise = float(stack.std(axis=0, ddof=1).mean())
    return noise if not relative else _ratio(noise, float(stack.mean()))


def noise_gain(
    after: Sequence[np.ndarray], before: Sequence[np.ndarray], relative: bool = False
) -> float:
    """:func:`burst_noise` of the enhanced frames over that of the input frames; 1 leaves the noise as it was."""
    return _ratio(burst_noise(after, relative), burst_noise(before, relative))


def flat_dark_patches(image: np.ndarray) -> np.ndarray:
    """Top left corners (row, column) of the flat dark 16×16 patches of an (H, W, 3) uint8 image: (n, 2) int.

    Patches lie on a grid. Dark: mean luma below 50. Flat: the means of the patch's sixteen 4×4 cells deviate by at
    most a tenth of the patch's mean, or half a level; cell means show structure and hardly any noise. Patches whose
    cells are all uniform (blocked-up black) carry no noise to measure and are left out.
    """
    _check(image, "image")
    cells, inner = _cells(luma(image))
    average = cells.mean(axis=-1)
    flat = cells.std(axis=-1) <= np.maximum(FLAT * average, 0.5)
    return np.argwhere((average < DARK) & flat & (inner > 0)) * PATCH


def dark_noise_gain(image: np.ndarray, before: np.ndarray, relative: bool = False) -> float:
    """How many times noisier the input's flat dark patches became; 1 leaves the noise as it was.

    image, before: (H, W, 3) uint8. The patches are :func:`flat_dark_patches` of ``before``; noise is the standard
    deviation of luma around the mean of each 4×4 cell, averaged over the patches. ``relative`` divides noise by the
    patches' mean luma. NaN where the input has no such patch.
    """
    _pair(image, before, "before")
    rows, columns = (flat_dark_patches(before) // PATCH).T
    noise = []
    for photo in (image, before):
        cells, inner = _cells(luma(photo))
        level = cells[rows, columns].mean() if relative and len(rows) else 1.0
        noise.append(_ratio(inner[rows, columns].sum(), level))
    return _ratio(*noise)


def _cells(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the 4×4 cells of each 16×16 patch (h, w, 16), and the deviation inside cells, pooled (h, w)."""
    h, w = (side // PATCH for side in y.shape)
    blocks = y[: h * PATCH, : w * PATCH].reshape(
        h, 4, 4, w, 4, 4
    )  # patch, cell, pixel; rows then columns
    blocks = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(h, w, 16, 16)
    return blocks.mean(axis=-1), np.sqrt(blocks.var(axis=-1, ddof=1).mean(axis=-1))


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")


# ---------------------------------------------------------------------------------------------- detail, colour, order


def detail_lost_map(image: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where detail went: (lost, detail), both (H, W) in grey levels, 0 ≤ lost ≤ detail.

    image, before: (H, W, 3) uint8. ``detail`` is the local standard deviation of the input's luma (Gaussian window,
    σ 1.5 pixels). Around each pixel a line is fitted from the input's luma to the image's; its slope is what became
    of the local contrast, and the part of a slope below 1 is lost: 0 where contrast was kept or raised, all of it
    where the image is flat. Noise that enhancement adds does not follow the input and so does not pass as detail.
    """
    _pair(image, before, "before")
    x, y = luma(before), luma(image)

    def window(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1.5, mode="nearest", truncate=3)

    mean_x = window(x)
    variance = np.maximum(window(x * x) - mean_x * mean_x, 0)
    covariance = window(x * y) - mean_x * window(y)
    detail = np.sqrt(np.where(variance > 1e-6, variance, 0))
    slope = covariance / np.maximum(variance, 1e-6)
    return detail * (1 - np.clip(slope, 0, 1)), detail


def detail_kept(image: np.ndarray, before: np.ndarray) -> float:
    """Share of the input's local contrast that survives, in [0, 1]; see :func:`detail_lost_map` for its measure.

    image, before: (H, W, 3) uint8. 1 for the input itself and for any brightening that nowhere compresses tones;
    less where tones are squeezed together or clipped, or texture is smoothed. Contrast raised in one place does not
    make up for contrast lost in another. NaN where the input is uniform.
    """
    lost, detail = detail_lost_map(image, before)
    return 1 - _ratio(lost.sum(), detail.sum())


def color_cast(image: np.ndarray, before: np.ndarray) -> float:
    """Shift of the mean colour that a change of exposure does not explain, in CIELAB units (a*, b*); 0 is none.

    image, before: (H, W, 3) uint8, sRGB. Exposure multiplies linear light. So every pixel of the input is brought in
    linear light to the luminance that it has in the image; its a*, b* are taken from the image's, and the result is
    the length of the mean of these differences. A tint counts, and so does the fading of a dominant colour.
    """
    _pair(image, before, "before")
    old, new = rgb2xyz(before), rgb2xyz(image)
    exposed = old * (new[..., 1:2] / np.maximum(old[..., 1:2], 1e-9))
    shift = (xyz2lab(new) - xyz2lab(exposed))[..., 1:].reshape(-1, 2).mean(axis=0)
    return float(np.hypot(*shift))


def loe(image: np.ndarray, before: np.ndarray) -> float:
    """Lightness order error: how many of the sampled pixels, on average, change places in brightness with a pixel.

    image, before: (H, W, 3) uint8. Lightness is the largest channel, its maximum over 15×15 pixels, sampled at every
    step-th pixel, step = shorter side // 50: 50 or more samples along the shorter side. In [0, number of samples], so
    comparable between photographs of one shape only; 0 keeps the order of all pairs.

    Source: "Naturalness Preserved Enhancement Algorithm" (Wang et al. 2013), its released code.
    """
    _pair(image, before, "before")
    step = max(min(image.shape[:2]) // 50, 1)
    samples = []
    for photo in (before, image):
        lightness = ndimage.maximum_filter(photo.max(axis=-1), size=15, mode="mirror")
        samples.append(lightness[step - 1 :: step, step - 1 :: step].ravel())
    old, new = samples
    wrong = sum(
        int(np.count_nonzero((old >= a) != (new >= b))) for a, b in zip(old, new, strict=True)
    )
    return wrong / old.size


# ------------------------------------------------------------------------------------------------------------ NIQE


@dataclass(frozen=True)
class NiqeModel:
    """Statistics of pristine photographs: ``mean`` (36,) and ``covariance`` (36, 36) of NIQE's features."""

    mean: np.ndarray
    covariance: np.ndarray


def load_niqe_model(path: str | Path) -> NiqeModel:
    """Read ``niqe_modelparameters.mat`` as released by NIQE's authors. ValueError if the file holds something else."""
    try:
        content = io.loadmat(path)
        return NiqeModel(content["mu_prisparam"].ravel(), content["cov_prisparam"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: not NIQE's model file with mu_prisparam and cov_prisparam ({error})"
        ) from error


def niqe(image: np.ndarray, model: NiqeModel) -> float:
    """Naturalness of an (H, W, 3) uint8 image without a reference: a distance, 0 or more, lower is better.

    Y (BT.601, 16 – 235, rounded), whole blocks of 96×96 from the top left, features at full and at half size. NaN
    where the image has fewer than two such blocks. model: :func:`load_niqe_model`.

    Filters run in single precision, on which published scores rest: uniform areas then come out as exact zeros, where
    double precision leaves crumbs of 1e-14 that count as texture and move the score by up to 0.09.

    Source: "Making a completely blind image quality analyzer" (Mittal et al. 2013), its released code.
    """
    _check(image, "image")
    h, w = (side // NIQE_BLOCK for side in image.shape[:2])
    if h * w < 2:
        return float("nan")
    y = np.rint(image @ np.array([65481, 128553, 24966]) / 255000 + 16).astype(np.float32)
    y = y[: h * NIQE_BLOCK, : w * NIQE_BLOCK]
    scales = []
    for block in (NIQE_BLOCK, NIQE_BLOCK // 2):
        normal = (
            _normalised(y).reshape(h, block, w, block).swapaxes(1, 2).reshape(h * w, block, block)
        )
        scales.append([_block_features(b) for b in normal])
        y = _halved(_halved(y).T).T
    features = np.concatenate(scales, axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        return float("nan")
    difference = model.mean - np.nanmean(features, axis=0)
    spread = (model.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(spread) @ difference))


def _normalised(y: np.ndarray) -> np.ndarray:
    """Luma less its local mean, over its local deviation plus 1; Gaussian window of 7×7, σ 7/6, edges repeated."""

    def window(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 7 / 6, mode="nearest", radius=3)

    average = window(y)
    return (y - average) / (np.sqrt(np.abs(window(y * y) - average * average)) + 1)


def _halved(y: np.ndarray) -> np.ndarray:
    """Rows (2n, …) → (n, …) by MATLAB's antialiased bicubic: the kernel stretched to eight taps, edges mirrored."""
    d = np.abs(np.arange(8) - 3.5) / 2
    taps = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2)
    padded = np.pad(y, ((3, 3), (0, 0)), mode="symmetric")
    taps = (taps / taps.sum()).astype(y.dtype)
    return sum(tap * padded[k : k + len(y) : 2] for k, tap in enumerate(taps))


_SHAPES = np.arange(
    0.2, 10.001, 0.001
)  # candidates for the shape of the distribution, released code
_SHAPE_RATIOS = special.gamma(2 / _SHAPES) ** 2 / (
    special.gamma(1 / _SHAPES) * special.gamma(3 / _SHAPES)
)


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right scale of the asymmetric generalised Gaussian that matches the moments of ``values``."""
    negative, positive = values[values < 0], values[values > 0]
    left = np.sqrt(np.mean(negative**2)) if negative.size else np.nan
    right = np.sqrt(np.mean(positive**2)) if positive.size else np.nan
    skew = left / right
    ratio = (
        np.mean(np.abs(values)) ** 2 / np.mean(values**2)
        if negative.size and positive.size
        else np.nan
    )
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _SHAPES[np.argmin((_SHAPE_RATIOS - ratio) ** 2)]
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * scale, right * scale


def _block_features(block: np.ndarray) -> list[float]:
    """The 18 features of one normalised block: its distribution, and that of products with four neighbours."""
    shape, left, right = _fit(block)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _fit(block * np.roll(block, shift, axis=(0, 1)))
        centre = (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape)
        features += [shape, centre, left, right]
    return features


# ------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Metric:
    """A row of :data:`METRICS`. ``direction``: what is better, ``"higher"``, ``"lower"``, ``"nearer 1"`` … or ``"–"``.

    ``needs``: ``"nothing"`` but the image, its ``"input"``, a ``"reference"``, a ``"burst"`` of frames, or NIQE's
    ``"model file"``.
    """

    name: str
    direction: str
    range: str
    unit: str
    needs: str
    definition: str


_MATCHED = "the image times one gain, clipped at 255, that gives it the reference's mean"
METRICS = (
    Metric(
        "psnr", "higher", "0 – ∞", "dB", "reference", "peak signal-to-noise ratio on 8-bit values"
    ),
    Metric(
        "ssim",
        "higher",
        "−1 – 1",
        "",
        "reference",
        "structural similarity, 7×7 uniform window, mean over channels",
    ),
    Metric(
        "mae", "lower", "0 – 255", "grey levels", "reference", "mean absolute error per channel"
    ),
    Metric("psnr_matched", "higher", "0 – ∞", "dB", "reference", f"PSNR of {_MATCHED}"),
    Metric("ssim_matched", "higher", "−1 – 1", "", "reference", f"SSIM of {_MATCHED}"),
    Metric("mean", "–", "0 – 1", "", "nothing", "mean over pixels and channels"),
    Metric(
        "clipped_share",
        "lower",
        "0 – 1",
        "share of pixels",
        "nothing",
        f"any channel at {CLIPPED} or more",
    ),
    Metric(
        "newly_clipped",
        "lower",
        "0 – 1",
        "share of pixels",
        "input",
        "clipped in the image, not in the input",
    ),
    Metric(
        "bright_gain",
        "nearer 0",
        "−255 – 102",
        "grey levels",
        "input",
        f"mean luma gained by pixels whose luma was {BRIGHT} (0.6·255) or more in the input; empty without such pixels",
    ),
    Metric(
        "burst_noise",
        "lower",
        "0 – 147",
        "grey levels",
        "burst",
        "standard deviation over the frames of a static scene, mean over pixels and channels",
    ),
    Metric(
        "noise_gain",
        "lower",
        "0 – ∞",
        "×",
        "burst",
        "burst_noise of the enhanced frames over that of the input's",
    ),
    Metric(
        "noise_gain_relative",
        "lower",
        "0 – ∞",
        "×",
        "burst",
        "noise_gain with noise divided by the frames' mean: 1 where noise grew as much as brightness",
    ),
    Metric(
        "dark_noise_gain",
        "lower",
        "0 – ∞",
        "×",
        "input",
        f"growth of luma's standard deviation inside 4×4 cells, over the input's {PATCH}×{PATCH} patches that are dark "
        f"(mean luma below {DARK}) and flat (cell means deviate by {FLAT:.0%} of it or half a level at most); empty "
        "without such patches",
    ),
    Metric(
        "dark_noise_gain_relative",
        "lower",
        "0 – ∞",
        "×",
        "input",
        "dark_noise_gain with noise divided by the patches' mean luma",
    ),
    Metric(
        "detail_kept",
        "higher",
        "0 – 1",
        "share",
        "input",
        "share of the input's local contrast (luma, Gaussian window of σ 1.5 pixels) that the image still has in step "
        "with the input; contrast raised above the input's counts as kept, not more",
    ),
    Metric(
        "color_cast",
        "lower",
        "0 – ∞",
        "CIELAB a*, b*",
        "input",
        "length of the mean colour shift from the input brought to the image's luminance in linear light",
    ),
    Metric(
        "loe",
        "lower",
        "0 – samples",
        "samples",
        "input",
        "lightness order error: pixels that change places in brightness with a pixel, mean over samples of the largest "
        "channel (maximum over 15×15) at every (shorter side // 50)-th pixel",
    ),
    Metric(
        "niqe",
        "lower",
        "0 – ∞",
        "",
        "model file",
        f"distance from the statistics of pristine photographs, {NIQE_BLOCK}×{NIQE_BLOCK} blocks, full and half size; "
        "empty below two blocks",
    ),
)


def scores(
    image: np.ndarray,
    before: np.ndarray,
    reference: np.ndarray | None = None,
    niqe_model: NiqeModel | None = None,
) -> dict[str, float]:
    """Every figure of :data:`METRICS` that one enhanced photograph allows, by name and in the table's order.

    image, before (its input), reference: (H, W, 3) uint8 of one size. Without ``reference`` the figures that need one
    are left out, and NIQE without its model; figures on bursts are not here. NaN where a figure is undefined.
    """
    row: dict[str, float] = {}
    if reference is not None:
        matched = match_mean(image, reference)
        row |= {f.__name__: f(image, reference) for f in (psnr, ssim, mae)}
        row |= {"psnr_matched": psnr(matched, reference), "ssim_matched": ssim(matched, reference)}
    row |= {"mean": mean(image), "clipped_share": clipped_share(image)}
    row |= {f.__name__: f(image, before) for f in (newly_clipped, bright_gain, dark_noise_gain)}
    row["dark_noise_gain_relative"] = dark_noise_gain(image, before, relative=True)
    row |= {f.__name__: f(image, before) for f in (detail_kept, color_cast, loe)}
    if niqe_model is not None:
        row["niqe"] = niqe(image, niqe_model)
    return row
