"""Pixels to brighter pixels on the processor as machine code (numba): tables, filter and threads.

What it computes is what :mod:`zdce.engine.reference` defines; whatever it does not know is left to
that. Source: ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from zdce import auto
from zdce.engine import one_curve, winograd
from zdce.engine.reference import Curves, Reference, protected
from zdce.engine.tiling import Tile, parallel
from zdce.engine.vectors import numba
from zdce.engine.winograd import Winograd
from zdce.model import CurveNet
from zdce.postprocess import NOISE_BLOCK, apply_gamma, blend, gamma_table

ALONE = 2**18  # pixels up to which one thread renders: a second one takes longer to begin
ITERATIONS = auto.ITERATIONS  # of one curve: known to the compiler


class Compiled(Reference):
    """The reference's results from machine code: 8 bits in one pass, convolutions by Winograd's
    way.

    Of 16 bits, floats and grey only the convolutions, the box mean and the sample are machine code.
    """

    name = "compiled"

    def __init__(self, net: nn.Module, *, reduced: bool = False, reason: str = "") -> None:
        super().__init__(net, "cpu", reduced=reduced, reason=reason)
        self.winograd = Winograd(net) if winograd.can_run(net) else None

    def render(
        self,
        pixels: np.ndarray | Tensor,
        curves: Curves | None = None,
        *,
        gamma: float = 1.0,
        strength: float = 1.0,
        gray: bool = False,
        out: np.ndarray | None = None,
    ) -> np.ndarray | Tensor:
        """As :meth:`Reference.render`."""
        options = {"gamma": gamma, "strength": strength, "gray": gray, "out": out}
        if not isinstance(pixels, np.ndarray):
            return super().render(pixels, curves, **options)
        pixels = np.require(pixels, requirements=["C"])
        curves = self.curves(pixels) if curves is None else curves
        curves = curves and curves.arrays()
        if curves is not None and curves.highlight_protection and curves.values.size == 3:
            return self._one_curve(pixels, curves, **options)
        one_pass = (
            self.winograd and self.winograd.in_one_pass
            if curves is None
            else (curves.values.shape[2], curves.repeated) == (1, ITERATIONS)
        )
        if pixels.dtype != np.uint8 or gray or not one_pass:
            return super().render(pixels, curves, **options)
        table = None if gamma == 1 else gamma_table(gamma)
        out = np.empty_like(pixels) if out is None else out
        if curves is not None:
            bend(pixels, curves, table, out)
        else:
            parts = self._tiles(pixels, None)
            finish = self.winograd.finish
            parallel(lambda tile: finish(pixels, out, tile.rows, tile.columns, table), parts)
        if strength != 1:
            parallel(lambda tile: _mix(pixels, out, tile, strength), self._tiles(pixels, None))
        return out

    def enhanced(self, source: Tensor, curves: Curves | None, tile: Tile) -> Tensor:
        """As :meth:`Reference.enhanced`, of which convolutions round alike in any part."""
        if curves is None and self.winograd:
            seen = self.winograd.window(tile.rows, tile.columns, *source.shape[:2])
            tile = replace(tile, **seen)
        return super().enhanced(source, curves, tile)

    def estimate(self, image: Tensor, low: bool = False) -> Tensor:
        """As :meth:`Reference.estimate`; all is float32."""
        return self.winograd.curves(image) if self.winograd else super().estimate(image)

    def one_curve(self, pixels: Tensor) -> Curves:
        """As :meth:`Reference.one_curve`; no more of the photograph is read than the sample."""
        if min(pixels.shape[:2]) < NOISE_BLOCK or pixels.stride()[1:] != (3, 1):
            return super().one_curve(pixels)
        pixels = pixels.numpy()
        rows, columns = (auto.block_places(side).numpy() for side in pixels.shape[:2])
        at = (each[:, auto.POINTS].ravel() for each in (rows, columns))
        points = pixels[np.ix_(*at)].astype(np.float32)
        points /= 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
        points = torch.from_numpy(np.ascontiguousarray(points.transpose(2, 0, 1)))[None]
        r = np.float32(one_curve.search(points))
        estimated = one_curve.estimate_noise(pixels, rows, columns)
        noise = auto.noise_table(torch.tensor([r]), torch.tensor([estimated]))[0].numpy()
        return protected(np.full((1, 1, 1, 3), r), noise)

    def box_mean(self, pixels: Tensor, factor: int) -> Tensor:
        """As :meth:`Reference.box_mean`."""
        if pixels.dtype != torch.uint8 or factor >= 4096:
            return super().box_mean(pixels, factor)
        height, width = pixels.shape[:2]
        rows = math.ceil(height / factor)
        out = np.empty((rows, math.ceil(width / factor), 3), np.float32)
        lines = pixels.numpy().reshape(height, 3 * width)
        parallel(
            lambda part: _reduce(lines, out, factor, part.start, part.stop),
            shares(rows, height * width),
        )
        return torch.from_numpy(out).permute(2, 0, 1)[None]

    def _one_curve(
        self,
        pixels: np.ndarray,
        curves: Curves,
        *,
        gamma: float,
        strength: float,
        gray: bool,
        out: np.ndarray | None,
    ) -> np.ndarray:
        """As :meth:`Reference.render`, with one curve for all pixels."""
        out = np.empty_like(pixels) if out is None else out
        noise = np.zeros(256, np.float32) if curves.noise is None else curves.noise
        one_curve.render(pixels, out, float(curves.values.flat[0]), noise)

        def finish(tile: Tile) -> None:
            at = (tile.rows, tile.columns)
            if gray:  # three equal channels, which may have been rounded apart
                out[at] = out[at][..., 1:2]
            if gamma != 1:
                out[at] = (
                    out[at] ** gamma if out.dtype == np.float32 else apply_gamma(out[at], gamma)
                )
            if strength != 1:
                out[at] = blend(pixels[at], out[at], strength)

        if gray or gamma != 1 or strength != 1:
            parallel(finish, self._tiles(pixels, curves))
        return out


def can_run(net: nn.Module) -> bool:
    """Whether :class:`Compiled` has machine code for a network; needs numba."""
    return numba is not None and isinstance(net, CurveNet | auto.AutoCurve)


def _mix(pixels: np.ndarray, out: np.ndarray, tile: Tile, strength: float) -> None:
    at = (tile.rows, tile.columns)
    out[at] = blend(pixels[at], out[at], strength)


def bend(pixels: np.ndarray, curves: Curves, table: np.ndarray | None, out: np.ndarray) -> None:
    """Photograph (H, W, 3) uint8 by curves on a grid into ``out``, rounded, then through ``table``.

    One pass from 8 bits to 8 bits. Rounding is the released code's: x·255 + 0.5, truncated.
    """
    height, width = pixels.shape[:2]
    source, target = pixels.reshape(height, 3 * width), out.reshape(height, 3 * width)
    places = (*curves.places(height, 0), *curves.places(width, 1))
    end = (np.empty(0, np.uint8), True) if table is None else (table, False)

    def share(part: range) -> None:
        _bend(source, target, curves.values, *places, *end, (part.start, part.stop))

    parallel(share, shares(height, height * width))


def shares(count: int, pixels: float = math.inf) -> Sequence[range]:
    """Rows 0 … count − 1 in as many parts as there are threads; each row's result is its own.

    pixels: of all rows, few of which are done by one thread before another has begun.
    """
    threads = torch.get_num_threads() if pixels > ALONE else 1
    each = math.ceil(count / min(count, threads))
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


if numba:
    from zdce.engine.vectors import machine_code, through

    @machine_code
    def _reduce(source, out, factor, first, last):
        height, samples = source.shape
        width = samples // 3
        sums = np.empty(samples, np.uint32)
        for row in range(first, last):
            sums[:] = 0
            stop = min((row + 1) * factor, height)
            for y in range(row * factor, stop):
                line = source[y]
                for i in range(samples):
                    sums[i] += line[i]
            for column in range(out.shape[1]):
                left, right = column * factor, min((column + 1) * factor, width)
                red, green, blue = np.uint32(0), np.uint32(0), np.uint32(0)
                for x in range(left, right):
                    red += sums[3 * x]
                    green += sums[3 * x + 1]
                    blue += sums[3 * x + 2]
                scale = 1.0 / (255.0 * (right - left) * (stop - row * factor))
                out[row, column, 0] = red * scale
                out[row, column, 1] = green * scale
                out[row, column, 2] = blue * scale

    @machine_code
    def _stretch(points, before, share, out):
        """A row of the grid (w, 1, 3) for every sample of a row of pixels: (3·width,)."""
        for x in range(before.shape[0]):
            left = before[x]
            right = min(left + 1, points.shape[0] - 1)
            for c in range(3):
                a = points[left, 0, c]
                out[3 * x + c] = a + share[x] * (points[right, 0, c] - a)

    @machine_code
    def _bend_row(source, target, above, below, share):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            a = above[i] + share * (below[i] - above[i])
            for _ in range(ITERATIONS):
                x += a * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @machine_code
    def _bend(source, target, curves, row, row_share, column, column_share, table, plain, part):
        samples = source.shape[1]
        above, below = np.empty(samples, np.float32), np.empty(samples, np.float32)
        held, y, last = -1, part[0], part[1]
        while y < last:
            point, stop = row[y], y
            while stop < last and row[stop] == point:
                stop += 1
            if held == point:
                above, below = below, above
            else:
                _stretch(curves[point], column, column_share, above)
            held = min(point + 1, curves.shape[0] - 1)
            _stretch(curves[held], column, column_share, below)
            for r in range(y, stop):
                _bend_row(source[r], target[r], above, below, row_share[r])
                if not plain:
                    through(target[r], table)
            y = stop
