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

STEADY = 0.5  # seconds, time constant of :class:`Steady`; ours
DARKER = 3.0  # as many times as long for curves that grow stronger; ours
CUT = 0.5  # change of the picture (:func:`change`) from which on a new scene begins; ours
JUMP = (16 / 255, 1.5)  # or its mean's, as difference and as ratio
FAITH = 8  # exponent of the share of light that is left, in how fast curves follow; ours
MOVED = 0.2  # relative change of the reduced picture at which curves follow at once; ours
LEVELLED = 0.1  # relative change of brightness, at most, that is held off
FLOOR = 2 / 255  # mean of a black picture; what is darker says nothing about a scene
TINY = 1 / 1000  # so that black can be divided by
ROUNDED = 3 / 510  # what rounding changes a pixel by, all colours together
POINTS = (9, 16)  # rows and columns of the reduced picture where there is one curve for all


def change(before: np.ndarray, after: np.ndarray) -> float:
    """How much two reduced pictures (h, w, 3) in [0, 1] differ, whatever the light: 0 … 2.

    Mean absolute difference over the mean, the first picture brought to the second one's mean.
    """
    mean = float(after.mean(dtype=np.float64))
    scaled = before * (mean / max(float(before.mean(dtype=np.float64)), 1e-6))
    return float(np.abs(after - scaled).mean(dtype=np.float64)) / max(mean, 1e-6)


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether a new scene begins: another picture, or all at once another light."""
    low, high = sorted(float(each.mean(dtype=np.float64)) for each in (before, after))
    if high - low > JUMP[0] and high > JUMP[1] * low:
        return True
    return low > 2 * FLOOR and change(before, after) > CUT


class Steady:
    """Curves steadied over time, so that neither they nor the camera's exposure make it flicker.

    Four rules, each on a reduced picture and its curves, with a time constant of ``seconds``:

    - Curves are their exponential mean: a frame dt seconds after the last one moves it by
      1 − exp(−dt/seconds) of the way to its own. Where the picture changed against its own mean, by
      a share of :data:`MOVED` after both were brought to one light, they move all the way, and by
      the square of the share below that, so that what moves draws no trail behind it.
    - A picture that grows brighter may weaken curves as fast, so that nothing bursts into white,
      but never so far that the result darkens. Curves grow stronger :data:`DARKER` times as slowly,
      and all the more slowly the less light is left: a fade to black is followed into black, and
      comes back as it went.
    - Curves are multiplied by one factor, which holds off small changes of brightness, up to
      :data:`LEVELLED`: a mean of curves alone would flicker more than none where exposure is
      unsteady, since a frame's own curves make up for a part of its exposure.
    - A frame that is another picture than the last one, or the same in quite another light, begins
      a new scene, and everything starts again from it. A black one starts with no change at all.

    Whether light changed is told by the median over the picture, on which something that moves has
    no say. ``seconds`` of 0 leaves every frame its own curves. Raises ValueError for less.
    """

    def __init__(self, seconds: float = STEADY) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"seconds={seconds}: the time constant must be 0 (off) or more")
        self.seconds = seconds
        self._last: np.ndarray | None = None  # the last reduced picture
        self._slow: np.ndarray | None = None  # the mean of reduced pictures
        self._curves: Curves | None = None  # the mean of curves
        self._above = 0.0  # logarithm of brightness, above its mean

    def __call__(self, curves: Curves, small: np.ndarray, passed: float) -> tuple[Curves, bool]:
        """The steadied curves, and whether a new scene begins.

        small: the reduced picture, (h, w, 3) float32 in [0, 1]; passed: seconds since the last one.
        """
        grid = curves.values.shape[:2]
        seen, last = _at_points(small, POINTS if grid == (1, 1) else grid), self._last
        self._last = seen
        cut = last is not None and _is_cut(last, seen)
        if not self.seconds:
            return curves, cut
        if last is None or cut:
            self._slow, self._above = seen, 0.0
            self._curves = curves if seen.mean() > FLOOR else _nothing(curves)
            return self._curves, cut
        weight, followed = self._weights(curves, seen, passed)
        self._slow = self._slow + followed[..., None] * (seen - self._slow)
        weight = weight.mean(keepdims=True) if grid == (1, 1) else weight
        self._curves = self._not_darker(_towards(self._curves, curves, weight), seen, last)
        return replace(self._curves, values=self._levelled(seen, last, passed)), cut

    def _weights(
        self, curves: Curves, seen: np.ndarray, passed: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far to go towards a frame's own curves and its picture, by point, in [0, 1]."""
        ratios = (seen.sum(axis=2) + TINY) / (self._slow.sum(axis=2) + TINY)
        light = float(np.median(ratios))  # of this picture against the mean's
        slow = self._slow * np.float32(light)
        moved = np.abs(seen - slow).sum(axis=2) - max(1.0, light) * ROUNDED
        moved /= ((seen + slow).sum(axis=2) / 2).clip(18 * FLOOR)
        moved = np.clip(moved / MOVED, 0, 1 if self._slow.mean() > FLOOR else 0) ** 2
        least, left = -math.expm1(-max(0.0, passed) / self.seconds), min(1.0, light)
        followed = least / DARKER * left
        least *= left**FAITH
        brighter = max(least, min(1.0, (max(0.0, math.log(light)) / MOVED) ** 2))
        own, held = (each.values.mean(axis=(2, 3)) for each in (curves, self._curves))
        weight = np.where(own < held, least / DARKER, brighter)
        followed = brighter if light > 1 else followed
        return tuple(np.maximum(moved, each).astype(np.float32) for each in (weight, followed))

    def _not_darker(self, curves: Curves, seen: np.ndarray, last: np.ndarray) -> Curves:
        """The curves' new mean, held back where it would darken what grows brighter."""
        before = _brightness(last, self._curves)
        kept, gone = (np.median(_brightness(seen, c) - before) for c in (self._curves, curves))
        if np.median(seen.sum(axis=2) - last.sum(axis=2)) <= 0 or gone >= 0 or kept <= 0:
            return curves
        share = np.full(curves.values.shape[:2], kept / (kept - gone), np.float32)
        return _towards(self._curves, curves, share)

    def _levelled(self, seen: np.ndarray, last: np.ndarray, passed: float) -> np.ndarray:
        """Values of the curves' mean, times the factor that holds off changes of brightness."""
        curves, step = self._curves, 0.02
        now = _brightness(seen, curves)
        above = self._above + float(np.median(now - _brightness(last, curves)))
        above *= math.exp(-max(0.0, passed) / self.seconds)
        self._above = min(max(above, -LEVELLED), LEVELLED)
        stronger = replace(curves, values=curves.values * np.float32(1 + step))
        gained = float(np.median(_brightness(seen, stronger) - now)) / step
        factor = 1 - self._above / gained if gained > 1e-3 else 1.0
        return (curves.values * np.float32(min(max(factor, 0.8), 1.25))).clip(-1, 1)


def _towards(before: Curves, after: Curves, weight: np.ndarray) -> Curves:
    """Curves between two: ``weight`` (h, w) of the second's values, its mean of the noise
    levels.
    """
    values = before.values + weight[..., None, None] * (after.values - before.values)
    noise = before.noise
    if noise is not None:
        noise = noise + weight.mean() * (after.noise - noise)
    return replace(after, values=values, noise=noise)


def _nothing(curves: Curves) -> Curves:
    """Curves of the same kind that change no picture."""
    noise = None if curves.noise is None else 0 * curves.noise
    return replace(curves, values=0 * curves.values, noise=noise)


def _at_points(small: np.ndarray, points: tuple[int, int]) -> np.ndarray:
    """A reduced picture (h, w, 3) with as many pixels as there are points, by box means."""
    for axis, count in enumerate(points):
        edges = np.arange(count) * small.shape[axis] // count
        sizes = np.diff(edges, append=small.shape[axis]).clip(1)
        sums = np.add.reduceat(small, edges, axis=axis)
        small = sums / np.float32(sizes).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
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
