"""Curves of one frame after another, steadied so that a video's brightness does not flicker.

Source: ours.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from zdce.engine import Curves
from zdce.model import apply_curves
from zdce.postprocess import highlight_protection

STEADY = 0.5  # seconds, time constant of :class:`Steady`; ours, like all that follow
DARKER = 2.0  # as many times as long for curves that grow stronger
CUT = 0.5  # change of the picture (:func:`change`) from which on a new scene begins
JUMP = (16 / 255, 1.5)  # or its mean's, as difference and as ratio
SAME = 0.9  # correlation with the scene's picture from which on it is the same scene
FADE = 0.2  # recent change of contrast, as a logarithm, at which curves are held
MOVED = 0.2  # relative change of the reduced picture at which its curves follow at once
FLOOR = 2 / 255  # mean of a black picture, or of white less its mean; neither says anything
TINY = 1 / 1000  # so that black can be divided by
ROUNDED = 3 / 510  # what rounding changes a pixel by, all colours together
POINTS = (9, 16)  # rows and columns of the reduced picture where there is one curve for all


class Steady:
    """Curves steadied over time, so that neither they nor the camera's exposure make it flicker.

    - Curves are their exponential mean over ``seconds``, :data:`DARKER` times as slow where they
      grow stronger. How they differ from point to point follows at once where something moved.
    - In fades to black, to white and back they are held: where light and contrast differ from their
      recent means by about :data:`FADE` while the picture stays the same (:data:`SAME`), and where
      it is black or white. Light that stays another is followed soon after.
    - Light that rises, and contrast with it, may weaken curves at once, so that nothing bursts into
      white, but never so far that the result darkens.
    - One factor holds off small changes of brightness outside of fades: a mean of curves alone
      would flicker more than none where exposure is unsteady.
    - Another picture than the last one, or the same in quite another light, begins a new scene with
      its own curves; a black one with none.

    Whether light changed is told by the median over a reduced picture, on which something that
    moves has no say. ``seconds`` of 0 leaves every frame its own curves; ValueError for less.
    """

    def __init__(self, seconds: float = STEADY) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"seconds={seconds}: the time constant must be 0 (off) or more")
        self.seconds = seconds
        self._last: np.ndarray | None = None  # the last reduced picture
        # logarithms against their recent means: the picture's light, its contrast, the brightness
        self._light = self._contrast = self._above = 0.0

    def __call__(self, curves: Curves, small: np.ndarray, passed: float) -> Curves:
        """The steadied curves.

        small: the reduced picture, (h, w, 3) float32 in [0, 1]; passed: seconds since the last one.
        """
        if not self.seconds:
            return curves
        grid, last = curves.values.shape[:2], self._last
        self._last = seen = _at_points(small, POINTS if grid == (1, 1) else grid)
        if last is None or self._is_cut(last, seen):
            black = seen.mean() <= FLOOR
            self._slow, self._curves = seen, _times(curves, 0) if black else curves  # means
            self._known = not _is_empty(seen)  # whether the curves are those of this scene
            self._light = self._contrast = self._above = 0.0
            return self._curves
        least = -math.expm1(-max(0.0, passed) / self.seconds)
        weight, moved = self._weights(curves, seen, last, least)
        curves = _towards(self._curves, curves, weight, moved)
        self._curves = self._not_darker(curves, seen, last)
        return _times(self._curves, self._levelling(seen, last, least))

    def _is_cut(self, before: np.ndarray, after: np.ndarray) -> bool:
        """Whether a new scene begins: another picture, or all at once another light."""
        low, high = sorted(float(each.mean(dtype=np.float64)) for each in (before, after))
        if high - low > JUMP[0] and high > JUMP[1] * low:
            # else it is a part of a fade
            return self._steadiness() > 0.01 or before.mean() <= FLOOR
        return low > 2 * FLOOR and change(before, after) > CUT

    def _weights(
        self, curves: Curves, seen: np.ndarray, last: np.ndarray, least: float
    ) -> tuple[float, np.ndarray]:
        """How far to go towards a frame's own curves, in [0, 1]: as a whole, and by point."""
        light = math.log(_light(seen, last))
        contrast = [float(each.mean(axis=2).std()) + TINY / 3 for each in (seen, last)]
        self._light = (self._light + light) * (1 - least)
        self._contrast = (self._contrast + math.log(contrast[0] / contrast[1])) * (1 - least)
        moved = self._moved(seen)
        if _is_empty(seen):
            return 0.0, 0 * moved
        steady = self._steadiness()
        one, other = seen - seen.mean(), self._slow - self._slow.mean()
        same = (one * other).sum() >= SAME * math.sqrt((one**2).sum() * (other**2).sum())
        self._known = steady > 0.9 or (self._known and bool(same or contrast[0] <= FLOOR))
        held = steady if self._known else 1.0
        self._slow = self._slow + np.float32(least * steady) * (seen - self._slow)
        if curves.values.mean() < self._curves.values.mean():
            return least / DARKER * held, moved
        brighter = min(1.0, (self._light / MOVED) ** 2) if min(light, self._light) > 0 else 0.0
        return max(least * held, brighter * _within(max(0.0, self._light - self._contrast))), moved

    def _steadiness(self) -> float:
        """1 where light and contrast did not both change of late, near 0 in a fade."""
        return _within(math.hypot(self._light, self._contrast))

    def _moved(self, seen: np.ndarray) -> np.ndarray:
        """How far each point's picture changed against its mean in the same light, in [0, 1]."""
        light = _light(seen, self._slow)
        sums, slow = seen.sum(axis=2), light * self._slow.sum(axis=2)
        unsure = ROUNDED * (max(1.0, light) + slow / (np.median(sums) + TINY))
        moved = np.abs(seen - light * self._slow).sum(axis=2) - unsure
        moved /= ((sums + slow) / 2).clip(18 * FLOOR)
        return np.clip(moved / MOVED, 0, 1 if self._slow.mean() > FLOOR else 0) ** 2

    def _not_darker(self, curves: Curves, seen: np.ndarray, last: np.ndarray) -> Curves:
        """The curves' new mean, held back where it would darken what grows brighter."""
        before = np.exp(_brightness(last, self._curves)).mean()
        kept, gone = (np.exp(_brightness(seen, c)).mean() - before for c in (self._curves, curves))
        if np.median(seen.sum(axis=2) - last.sum(axis=2)) <= 0 or gone >= 0:
            return curves
        return _towards(self._curves, curves, float(max(0.0, kept) / (max(0.0, kept) - gone)))

    def _levelling(self, seen: np.ndarray, last: np.ndarray, least: float) -> float:
        """The factor for the curves' mean that holds off small changes of brightness."""
        now, step = _brightness(seen, self._curves), 0.02
        above = self._above + float(np.median(now - _brightness(last, self._curves)))
        self._above = above * (1 - least) * self._steadiness()
        gained = float(np.median(_brightness(seen, _times(self._curves, 1 + step)) - now)) / step
        factor = 1 - self._above / gained if gained > 1e-3 else 1.0
        return min(max(factor, 0.92), 1.08)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """How much two reduced pictures (h, w, 3) in [0, 1] differ, whatever the light: 0 … 2.

    Mean absolute difference over the mean, the first picture brought to the second one's mean.
    """
    mean = float(after.mean(dtype=np.float64))
    scaled = before * (mean / max(float(before.mean(dtype=np.float64)), 1e-6))
    return float(np.abs(after - scaled).mean(dtype=np.float64)) / max(mean, 1e-6)


def _is_empty(seen: np.ndarray) -> bool:
    """Whether a picture is black or white all over."""
    return not FLOOR < seen.mean() < 1 - FLOOR


def _light(seen: np.ndarray, before: np.ndarray) -> float:
    """By which factor the light changed, as most of the picture has it."""
    return float(np.median((seen.sum(axis=2) + TINY) / (before.sum(axis=2) + TINY)))


def _within(change: float) -> float:
    """1 for no recent change, near 0 for that of a fade."""
    return math.exp(-((change / FADE) ** 4))


def _towards(before: Curves, after: Curves, weight: float, moved: np.ndarray | float = 0) -> Curves:
    """Curves between two: ``weight`` of the second's, and where something ``moved`` (h, w) more of
    how these differ from point to point.
    """
    weight = np.float32(weight)
    own, held = (c.values - c.values.mean(axis=(0, 1)) for c in (after, before))
    more = np.atleast_2d(moved - weight).clip(0).astype(np.float32)[..., None, None]
    values = before.values + weight * (after.values - before.values) + more * (own - held)
    noise = before.noise
    if noise is not None:
        noise = noise + weight * (after.noise - noise)
    return replace(after, values=values, noise=noise)


def _times(curves: Curves, factor: float) -> Curves:
    """The curves times a factor; with 0 they change no picture."""
    noise = 0 * curves.noise if curves.noise is not None and not factor else curves.noise
    return replace(curves, values=(curves.values * np.float32(factor)).clip(-1, 1), noise=noise)


def _at_points(small: np.ndarray, points: tuple[int, int]) -> np.ndarray:
    """A reduced picture (h, w, 3) with as many pixels as there are points, by box means."""
    for axis, count in enumerate(points):
        edges = np.arange(count) * small.shape[axis] // count
        sizes = np.diff(edges, append=small.shape[axis]).clip(1).astype(np.float32)
        small = np.add.reduceat(small, edges, axis=axis) / np.expand_dims(sizes, (1 - axis, 2))
    return small


def _brightness(small: np.ndarray, curves: Curves) -> np.ndarray:
    """Logarithm of the mean over colours of a reduced picture after the curves: (h, w)."""
    image = small.transpose(2, 0, 1)[None]
    protection = 1.0
    if curves.highlight_protection:
        protection = highlight_protection(torch.from_numpy(image)).numpy()
    for values in np.moveaxis(curves.values, (2, 3), (0, 1)):  # NumPy: threads would only wait
        image = apply_curves(image, values[None] * protection, curves.repeated)
    return np.log(image[0].mean(axis=0).clip(1 / 255))
