"""What is measured: agreement with a reference, and what enhancement does to bright areas, noise, detail and colour.

Photographs are (H, W, 3) uint8 arrays throughout, or :class:`Photograph` around one, which remembers what several
figures read of it. :data:`METRICS` lists every figure with its direction, range and definition, and :func:`scores`
computes those that one photograph and its input allow. "Luma" is BT.601, 0.299 R + 0.587 G + 0.114 B, in grey levels
(0 – 255).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import io, ndimage, special
from skimage.color import xyz2lab
from skimage.color.colorconv import xyz_from_rgb

VERSION = (
    1  # of every figure together; scores that are kept name it, and a change of any value raises it
)
CLIPPED = 250  # grey levels; ours: the curve fixes 255 and piles bright tones up just below it
BRIGHT = (
    153  # grey levels; ours: the exposure loss's target of 0.6, above which nothing needed light
)
DARK = 50  # grey levels; ours: what counts as dark
LEAST = 0.01  # ours: share of a photograph that must be dark (bright) before the spread of its tones counts
PATCH = 16  # pixels; ours: side of a flat dark patch, made of 4×4 cells of 4×4 pixels
FLAT = 0.1  # ours: in a flat patch the 16 cell means spread by at most this share of its mean, or half a level
FRAME, INSIDE = (
    4,
    (8, 16),
)  # pixels from the edge; ours: where a border is looked for, and beside what
NIQE_BLOCK = 96  # pixels; NIQE's released code
LUMA = np.array([0.299, 0.587, 0.114])
_LEVELS = np.arange(256) / 255
_TO_LINEAR = np.where(
    _LEVELS > 0.04045, ((_LEVELS + 0.055) / 1.055) ** 2.4, _LEVELS / 12.92
)  # sRGB


class Photograph:
    """An (H, W, 3) uint8 image and what figures read of it, each worked out once.

    Every function here takes one in place of an array: where many results are scored against one input, that input's
    share of the work is done once. ``name`` is for messages. Raises ValueError for another kind of array.
    """

    def __init__(self, pixels: np.ndarray, name: str = "image") -> None:
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or pixels.ndim != 3
            or pixels.shape[2] != 3
            or not pixels.size
        ):
            kind = getattr(pixels, "dtype", type(pixels).__name__)
            raise ValueError(
                f"{name} is {kind} {getattr(pixels, 'shape', '')}: give an (H, W, 3) uint8 array "
                "with pixels in it"
            )
        self.pixels, self.shape = pixels, pixels.shape

    @cached_property
    def luma(self) -> np.ndarray:
        return luma(self.pixels)

    @cached_property
    def peak(self) -> np.ndarray:
        """Largest channel, (H, W) uint8."""
        red, green, blue = np.moveaxis(self.pixels, -1, 0)
        return np.maximum(np.maximum(red, green), blue)

    @cached_property
    def clipped(self) -> np.ndarray:
        return self.peak >= CLIPPED

    @cached_property
    def bright(self) -> np.ndarray:
        return self.luma >= BRIGHT

    @cached_property
    def dark(self) -> np.ndarray:
        return self.luma < DARK

    @cached_property
    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of the 4×4 cells of each 16×16 patch (h, w, 16), and the deviation inside cells, pooled (h, w)."""
        h, w = (side // PATCH for side in self.shape[:2])
        blocks = self.luma[: h * PATCH, : w * PATCH].reshape(h, 4, 4, w, 4, 4)  # patch, cell, pixel
        blocks = blocks.transpose(0, 3, 1, 4, 2, 5).reshape(h, w, 16, 16)
        return blocks.mean(axis=-1), np.sqrt(blocks.var(axis=-1, ddof=1).mean(axis=-1))

    @cached_property
    def flat_dark(self) -> np.ndarray:
        """See :func:`flat_dark_patches`."""
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
    def boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values as float32, and over 7×7 windows their mean and variance (n − 1), float64."""
        values = self.pixels.astype(np.float32)
        average = _box(values) / 49.0
        return values, average, 49 / 48 * (_box(values * values) / 49.0 - average * average)

    @cached_property
    def xyz(self) -> np.ndarray:
        """CIE XYZ, sRGB taken out by a table."""
        return _TO_LINEAR[self.pixels] @ xyz_from_rgb.T

    @cached_property
    def lightness(self) -> np.ndarray:
        """The samples of :func:`loe`."""
        step = max(min(self.shape[:2]) // 50, 1)
        widest = ndimage.maximum_filter(self.peak, size=15, mode="mirror")
        return widest[step - 1 :: step, step - 1 :: step].ravel()


Image = np.ndarray | Photograph


def _seen(image: Image, name: str = "image") -> Photograph:
    return image if isinstance(image, Photograph) else Photograph(image, name)


def _pair(image: Image, other: Image, name: str) -> tuple[Photograph, Photograph]:
    image, other = _seen(image), _seen(other, name)
    if image.shape != other.shape:
        raise ValueError(
            f"image is {image.shape} and {name} {other.shape}: both must have one size"
        )
    return image, other


def luma(image: np.ndarray) -> np.ndarray:
    """Brightness of ``image`` (…, 3): (…) float64, BT.601, in the image's own units (grey levels for uint8)."""
    return image @ LUMA


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


# ------------------------------------------------------------------------------------------- against a reference


def _errors(image: Image, reference: Image) -> np.ndarray:
    """How many values are off by 0, 1, … 255 grey levels."""
    image, reference = _pair(image, reference, "reference")
    a, b = image.pixels.ravel(), reference.pixels.ravel()
    return np.bincount(np.maximum(a, b) - np.minimum(a, b), minlength=256)


def psnr(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio of two (H, W, 3) uint8 images in dB, over all channels; infinite where equal."""
    counts = _errors(image, reference)
    squares = counts @ np.arange(256) ** 2
    return float(10 * np.log10(255**2 * counts.sum() / squares)) if squares else float("inf")


def mae(image: Image, reference: Image) -> float:
    """Mean absolute error of two (H, W, 3) uint8 images in grey levels per channel (the paper sums three channels)."""
    counts = _errors(image, reference)
    return float(counts @ np.arange(256) / counts.sum())


def ssim(image: Image, reference: Image) -> float:
    """Structural similarity of two (H, W, 3) uint8 images, at most 1, mean over channels.

    Source: scikit-image's defaults, a uniform 7×7 window over whole windows. Sums of 49 squared bytes are exact in
    float32, so the value is scikit-image's but for the fourteenth digit. NaN where a side is shorter than the window.
    """
    image, reference = _pair(image, reference, "reference")
    if min(image.shape[:2]) < 7:
        return float("nan")
    (a, mean_a, var_a), (b, mean_b, var_b) = image.boxes, reference.boxes
    both = mean_a * mean_b
    covariance = 49 / 48 * (_box(a * b) / 49.0 - both)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * both + c1) * (2 * covariance + c2)
    return float((alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _box(values: np.ndarray) -> np.ndarray:
    """Sums over whole 7×7 windows: (H, W, C) float32 → (H − 6, W − 6, C) float64, exact for whole numbers below 2²⁴."""
    for _ in range(2):
        pairs = values[:-1] + values[1:]
        fours = pairs[:-2] + pairs[2:]
        values = (fours[:-3] + pairs[4:-1] + values[6:]).swapaxes(0, 1)
    return values.astype(np.float64)


def mean(image: Image) -> float:
    """Mean of an (H, W, 3) uint8 image over pixels and channels, in [0, 1]."""
    return float(_seen(image).pixels.mean() / 255)


def match_mean(image: Image, reference: Image) -> np.ndarray:
    """``image`` (H, W, 3) uint8 brightened or darkened to the mean of ``reference``, for the mean-matched columns.

    One gain multiplies the 8-bit values of all three channels; the product is clipped at 255 and rounded. Usual
    practice ("GT-mean") takes the ratio of the means as the gain, and so stays too dark wherever values clip; here the
    gain is the one whose clipped result has the reference's mean (ours). The two differ only where something clips.
    A black image has no such gain and returns as it is.
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


# --------------------------------------------------------------------------------------------- bright and dark areas


def clipped_mask(image: Image) -> np.ndarray:
    """Pixels of an (H, W, 3) uint8 image with any channel at 250 or more, where tones hardly differ: (H, W) bool."""
    return _seen(image).clipped


def clipped_share(image: Image) -> float:
    """Share of the pixels of an (H, W, 3) uint8 image with any channel at 250 or more, in [0, 1]."""
    return float(clipped_mask(image).mean())


def newly_clipped(image: Image, before: Image) -> float:
    """Share of pixels clipped in ``image`` and not in its input ``before``, both (H, W, 3) uint8: in [0, 1]."""
    image, before = _pair(image, before, "before")
    return float((image.clipped & ~before.clipped).mean())


def bright_gain(image: Image, before: Image) -> float:
    """Mean luma gained, in grey levels, over the pixels that were bright before (luma of 153 = 0.6·255 or more).

    image, before: (H, W, 3) uint8. NaN where the input has no such pixel.
    """
    image, before = _pair(image, before, "before")
    return _mean((image.luma - before.luma)[before.bright])


def bright_clipped(image: Image, before: Image) -> float:
    """Share of the input's bright pixels (luma of 153 or more) that are clipped in ``image`` and were not before.

    image, before: (H, W, 3) uint8. In [0, 1]; NaN where the input has no bright pixel.
    """
    image, before = _pair(image, before, "before")
    return _mean((image.clipped & ~before.clipped)[before.bright])


def tone_spread(image: Image, before: Image, tones: str) -> float:
    """Contrast among the input's ``"dark"`` (luma below 50) or ``"bright"`` pixels (153 or more): the standard
    deviation of their values in ``image``, grey levels, pooled over the channels.

    image, before: (H, W, 3) uint8. NaN where less than 1 % of the photograph is dark (bright).
    """
    image, before = _pair(image, before, "before")
    mask = getattr(before, tones)
    if mask.mean() < LEAST or not mask.any():
        return float("nan")
    values = image.pixels.reshape(-1, 3).take(np.flatnonzero(mask), axis=0)
    levels, square = np.arange(256), np.arange(256) ** 2
    counts = np.stack([np.bincount(channel, minlength=256) for channel in values.T]) / len(values)
    return float(np.sqrt((counts @ square - (counts @ levels) ** 2).mean()))


def border(image: Image) -> float:
    """How much brighter the outermost 4 pixels of a photograph are than the strip 8 – 16 pixels from its edge, per cent
    of the strip's luma.

    image: (H, W, 3) uint8. It holds what the photograph itself shows there, so a border is a difference between two
    methods. NaN where there is no strip, or only black in it.
    """
    y = _seen(image).luma
    rings = [_inner(y, distance) for distance in (0, FRAME, *INSIDE)]
    (whole, inside, start, end) = ((ring.sum(), ring.size) for ring in rings)
    frame = _ratio(whole[0] - inside[0], whole[1] - inside[1])
    strip = _ratio(start[0] - end[0], start[1] - end[1])
    return 100 * (_ratio(frame, strip) - 1)


def _inner(values: np.ndarray, distance: int) -> np.ndarray:
    """Of (H, W) values those that lie ``distance`` pixels or more from every edge."""
    height, width = values.shape
    return values[distance : max(height - distance, 0), distance : max(width - distance, 0)]


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


def flat_dark_patches(image: Image) -> np.ndarray:
    """Top left corners (row, column) of the flat dark 16×16 patches of an (H, W, 3) uint8 image: (n, 2) int.

    Patches lie on a grid. Dark: mean luma below 50. Flat: the means of the patch's sixteen 4×4 cells deviate by at
    most a tenth of the patch's mean, or half a level; cell means show structure and hardly any noise. Patches whose
    cells are all uniform (blocked-up black) carry no noise to measure and are left out.
    """
    return _seen(image).flat_dark


def dark_noise_gain(image: Image, before: Image, relative: bool = False) -> float:
    """How many times noisier the input's flat dark patches became; 1 leaves the noise as it was.

    image, before: (H, W, 3) uint8. The patches are :func:`flat_dark_patches` of ``before``; noise is the standard
    deviation of luma around the mean of each 4×4 cell, averaged over the patches. ``relative`` divides noise by the
    patches' mean luma. NaN where the input has no such patch.
    """
    image, before = _pair(image, before, "before")
    rows, columns = (before.flat_dark // PATCH).T
    noise = []
    for cells, inner in (image.cells, before.cells):
        level = cells[rows, columns].mean() if relative and len(rows) else 1.0
        noise.append(_ratio(inner[rows, columns].sum(), level))
    return _ratio(*noise)


# ---------------------------------------------------------------------------------------------- detail, colour, order


def _window(values: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(values, 1.5, mode="nearest", truncate=3)


def detail_lost_map(image: Image, before: Image) -> tuple[np.ndarray, np.ndarray]:
    """Where detail went: (lost, detail), both (H, W) in grey levels, 0 ≤ lost ≤ detail.

    image, before: (H, W, 3) uint8. ``detail`` is the local standard deviation of the input's luma (Gaussian window,
    σ 1.5 pixels). Around each pixel a line is fitted from the input's luma to the image's; its slope is what became
    of the local contrast, and the part of a slope below 1 is lost: 0 where contrast was kept or raised, all of it
    where the image is flat. Noise that enhancement adds does not follow the input and so does not pass as detail.
    """
    image, before = _pair(image, before, "before")
    mean_x, variance = before.window
    covariance = _window(before.luma * image.luma) - mean_x * _window(image.luma)
    detail = np.sqrt(np.where(variance > 1e-6, variance, 0))
    slope = covariance / np.maximum(variance, 1e-6)
    return detail * (1 - np.clip(slope, 0, 1)), detail


def detail_kept(image: Image, before: Image) -> float:
    """Share of the input's local contrast that survives, in [0, 1]; see :func:`detail_lost_map` for its measure.

    image, before: (H, W, 3) uint8. 1 for the input itself and for any brightening that nowhere compresses tones;
    less where tones are squeezed together or clipped, or texture is smoothed. Contrast raised in one place does not
    make up for contrast lost in another. NaN where the input is uniform.
    """
    return _kept(*detail_lost_map(image, before))


def _kept(lost: np.ndarray, detail: np.ndarray) -> float:
    return 1 - _ratio(lost.sum(), detail.sum())


def color_cast(image: Image, before: Image) -> float:
    """Shift of the mean colour that a change of exposure does not explain, in CIELAB units (a*, b*); 0 is none.

    image, before: (H, W, 3) uint8, sRGB. Exposure multiplies linear light. So every pixel of the input is brought in
    linear light to the luminance that it has in the image; its a*, b* are taken from the image's, and the result is
    the length of the mean of these differences. A tint counts, and so does the fading of a dominant colour.
    """
    image, before = _pair(image, before, "before")
    old, new = before.xyz, image.xyz
    exposed = old * (new[..., 1:2] / np.maximum(old[..., 1:2], 1e-9))
    shift = (xyz2lab(new) - xyz2lab(exposed))[..., 1:].reshape(-1, 2).mean(axis=0)
    return float(np.hypot(*shift))


def loe(image: Image, before: Image) -> float:
    """Lightness order error: how many of the sampled pixels, on average, change places in brightness with a pixel.

    image, before: (H, W, 3) uint8. Lightness is the largest channel, its maximum over 15×15 pixels, sampled at every
    step-th pixel, step = shorter side // 50: 50 or more samples along the shorter side. In [0, number of samples], so
    comparable between photographs of one shape only; 0 keeps the order of all pairs.

    Source: "Naturalness Preserved Enhancement Algorithm" (Wang et al. 2013), its released code.
    """
    image, before = _pair(image, before, "before")
    old, new = before.lightness, image.lightness
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
    image = _seen(image).pixels
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
    """A row of :data:`METRICS`. ``direction``: what is better, ``"higher"``, ``"lower"``, ``"nearer 0"`` or ``"–"``.

    ``needs``: ``"nothing"`` but the image, its ``"input"``, a ``"reference"``, a ``"burst"`` of frames, or NIQE's
    ``"model file"``. ``least``: the smallest difference between two methods that counts, in the figure's unit (ours);
    :mod:`zdce.study.claims` says why.
    """

    name: str
    direction: str
    range: str
    unit: str
    needs: str
    least: float
    definition: str


_MATCHED = "the image times one gain, clipped at 255, that gives it the reference's mean"
_BRIGHT = (
    f"pixels whose luma was {BRIGHT} (0.6·255) or more in the input; empty without such pixels"
)
_PATCHES = (
    f"growth of luma's standard deviation inside 4×4 cells, over the input's {PATCH}×{PATCH} patches that are dark "
    f"(mean luma below {DARK}) and flat (cell means deviate by {FLAT:.0%} of it or half a level at most)"
)
_SPREAD = "standard deviation of values, pooled over channels, among the input's"
_SHARE, _GREY = "share of pixels", "grey levels"
METRICS = tuple(
    Metric(*row)
    for row in (
        ("psnr", "higher", "0 – ∞", "dB", "reference", 0.1, "peak signal-to-noise ratio on 8-bit values"),
        ("ssim", "higher", "−1 – 1", "", "reference", 0.005,
         "structural similarity, 7×7 uniform window, mean over channels"),
        ("mae", "lower", "0 – 255", _GREY, "reference", 0.5, "mean absolute error per channel"),
        ("psnr_matched", "higher", "0 – ∞", "dB", "reference", 0.1, f"PSNR of {_MATCHED}"),
        ("ssim_matched", "higher", "−1 – 1", "", "reference", 0.005, f"SSIM of {_MATCHED}"),
        ("mean", "–", "0 – 1", "", "nothing", 0.005, "mean over pixels and channels"),
        ("clipped_share", "lower", "0 – 1", _SHARE, "nothing", 0.001, f"any channel at {CLIPPED} or more"),
        ("newly_clipped", "lower", "0 – 1", _SHARE, "input", 0.001, "clipped in the image, not in the input"),
        ("bright_gain", "nearer 0", "−255 – 102", _GREY, "input", 1.0, f"mean luma gained by {_BRIGHT}"),
        ("bright_clipped", "lower", "0 – 1", "share of bright pixels", "input", 0.005,
         f"newly clipped among {_BRIGHT}"),
        ("dark_spread", "higher", "0 – 128", _GREY, "input", 0.2,
         f"{_SPREAD} dark pixels (luma below {DARK}); empty where they are less than {LEAST:.0%} of the photograph"),
        ("bright_spread", "higher", "0 – 128", _GREY, "input", 0.2,
         f"{_SPREAD} bright pixels (luma of {BRIGHT} or more); empty likewise"),
        ("border", "–", "−100 – ∞", "%", "nothing", 2.0,
         f"luma of the outermost {FRAME} pixels above that {INSIDE[0]} – {INSIDE[1]} pixels from the edge; the "
         "photograph's own is in it, so a border is a difference between two methods"),
        ("burst_noise", "lower", "0 – 147", _GREY, "burst", 0.05,
         "standard deviation over the frames of a static scene, mean over pixels and channels"),
        ("relative_noise", "lower", "0 – ∞", "", "burst", 0.001, "burst_noise over the frames' mean"),
        ("noise_gain", "lower", "0 – ∞", "×", "burst", 0.05,
         "burst_noise of the enhanced frames over that of the input's"),
        ("noise_gain_relative", "lower", "0 – ∞", "×", "burst", 0.01,
         "noise_gain with noise divided by the frames' mean: 1 where noise grew as much as brightness"),
        ("dark_noise_gain", "lower", "0 – ∞", "×", "input", 0.05, f"{_PATCHES}; empty without such patches"),
        ("dark_noise_gain_relative", "lower", "0 – ∞", "×", "input", 0.01,
         "dark_noise_gain with noise divided by the patches' mean luma"),
        ("detail_kept", "higher", "0 – 1", "share", "input", 0.005,
         "share of the input's local contrast (luma, Gaussian window of σ 1.5 pixels) that the image still has in step "
         "with the input; contrast raised above the input's counts as kept, not more"),
        ("bright_detail_kept", "higher", "0 – 1", "share", "input", 0.005, f"detail_kept over {_BRIGHT}"),
        ("color_cast", "lower", "0 – ∞", "CIELAB a*, b*", "input", 0.2,
         "length of the mean colour shift from the input brought to the image's luminance in linear light"),
        ("loe", "lower", "0 – samples", "samples", "input", 10.0,
         "lightness order error: pixels that change places in brightness with a pixel, mean over samples of the "
         "largest channel (maximum over 15×15) at every (shorter side // 50)-th pixel"),
        ("niqe", "lower", "0 – ∞", "", "model file", 0.05,
         f"distance from the statistics of pristine photographs, {NIQE_BLOCK}×{NIQE_BLOCK} blocks, full and half size; "
         "empty below two blocks"),
    )
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}


def scores(
    image: Image,
    before: Image,
    reference: Image | None = None,
    niqe_model: NiqeModel | None = None,
) -> dict[str, float]:
    """Every figure of :data:`METRICS` that one enhanced photograph allows, by name and in the table's order.

    image, before (its input), reference: (H, W, 3) uint8 of one size. Without ``reference`` the figures that need one
    are left out, and NIQE without its model; figures on bursts are not here. NaN where a figure is undefined.
    """
    image, before = _pair(image, before, "before")
    lost, detail = detail_lost_map(image, before)
    row = agreement(image, reference) if reference is not None else {"mean": mean(image)}
    row["clipped_share"] = clipped_share(image)
    row |= {f.__name__: f(image, before) for f in (newly_clipped, bright_gain, bright_clipped)}
    row |= {f"{tones}_spread": tone_spread(image, before, tones) for tones in ("dark", "bright")}
    row |= {"border": border(image), "dark_noise_gain": dark_noise_gain(image, before)}
    row["dark_noise_gain_relative"] = dark_noise_gain(image, before, relative=True)
    row["detail_kept"] = _kept(lost, detail)
    row["bright_detail_kept"] = _kept(lost[before.bright], detail[before.bright])
    row |= {f.__name__: f(image, before) for f in (color_cast, loe)}
    if niqe_model is not None:
        row["niqe"] = niqe(image, niqe_model)
    return row


def agreement(image: Image, reference: Image) -> dict[str, float]:
    """The figures of :data:`METRICS` that compare with a reference, and the mean: the cheap part of :func:`scores`."""
    image, reference = _pair(image, reference, "reference")
    matched = Photograph(match_mean(image, reference))
    row = {f.__name__: f(image, reference) for f in (psnr, ssim, mae)}
    row |= {f"{f.__name__}_matched": f(matched, reference) for f in (psnr, ssim)}
    return row | {"mean": mean(image)}


def burst_scores(after: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> dict[str, float]:
    """The figures of :data:`METRICS` on a static scene; both hold its frames, (H, W, 3) uint8, enhanced and not."""
    noise, relative = burst_noise(after), burst_noise(after, relative=True)
    row = {"burst_noise": noise, "relative_noise": relative}
    row["noise_gain"] = _ratio(noise, burst_noise(before))
    return row | {"noise_gain_relative": _ratio(relative, burst_noise(before, relative=True))}
