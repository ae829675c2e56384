"""Pixels to brighter pixels on the processor as machine code (numba): tables, filter and threads.

:mod:`zdce.engine.reference` defines what is computed, and does what is not known here.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from zdce import auto
from zdce.engine import one_curve, winograd
from zdce.engine.reference import Curves, Reference
from zdce.engine.tiling import Tile, parallel
from zdce.engine.vectors import numba
from zdce.engine.winograd import Winograd
from zdce.postprocess import apply_gamma, blend, gamma_table

ITERATIONS = auto.ITERATIONS  # of one curve: known to the compiler


class Compiled(Reference):
    """The reference's results: 8 bits in one pass, networks and the curve alone at any depth."""

    name = "compiled"
    search = staticmethod(one_curve.search)

    def __init__(self, net: nn.Module, *, reduced: bool = False, reason: str = "") -> None:
        super().__init__(net, "cpu", reduced=reduced, reason=reason)
        self.winograd = Winograd(net) if winograd.can_run(net) else None

    def rendered(
        self, source: Tensor, curves: Curves | None, gamma: float, strength: float, gray: bool
    ) -> Tensor:
        pixels, curves = source.contiguous().numpy(), curves or self.found(source)
        one = curves is not None and len(curves.values) == 1 and curves.highlight_protection
        whole = curves is None and self.winograd is not None and self.winograd.in_one_pass
        grid = curves is not None and (curves.values.shape[2], curves.repeated) == (1, ITERATIONS)
        if not one and (pixels.dtype != np.uint8 or gray or not (grid or whole)):
            return super().rendered(source, curves, gamma, strength, gray)
        curves, out = curves and curves.arrays(), np.empty_like(pixels)
        table = np.empty(0, np.uint8) if gamma == 1 else gamma_table(gamma)
        if one:
            noise = np.zeros(256, np.float32) if curves.noise is None else curves.noise
            one_curve.render(pixels, out, float(curves.values.flat[0]), noise)
        elif grid:
            by_grid(pixels, curves, table, out)

        def finish(tile: Tile) -> None:
            at = tile.part
            if whole:
                self.winograd.finish(pixels, out, at, table)
            if gray:  # three equal channels, which may have been rounded apart
                out[at] = out[at][..., 1:2]
            if one and gamma != 1:
                floats = out.dtype == np.float32
                out[at] = out[at] ** gamma if floats else apply_gamma(out[at], gamma)
            if strength != 1:
                out[at] = blend(pixels[at], out[at], strength)

        if whole or gray or (one and gamma != 1) or strength != 1:
            parallel(finish, self.tiles(source, curves))
        return torch.from_numpy(out)

    def enhanced(self, source: Tensor, curves: Curves | None, tile: Tile) -> Tensor:
        """As :meth:`Reference.enhanced`, of which convolutions round alike in any part."""
        if curves is None and self.winograd:
            tile = replace(tile, seen=self.winograd.window(tile.part, *source.shape[:2]))
        return super().enhanced(source, curves, tile)

    def estimate(self, image: Tensor, low: bool = False) -> Tensor:
        """As :meth:`Reference.estimate`; all is float32."""
        return self.winograd.curves(image) if self.winograd else super().estimate(image)

    def box_mean(self, pixels: Tensor, factor: int) -> Tensor:
        if pixels.dtype != torch.uint8 or factor >= 4096:
            return super().box_mean(pixels, factor)
        height, width = pixels.shape[:2]
        rows = math.ceil(height / factor)
        out = np.empty((rows, math.ceil(width / factor), 3), np.float32)
        lines = pixels.numpy().reshape(height, 3 * width)
        parallel(lambda part: _reduce(lines, out, factor, part.start, part.stop), shares(rows))
        return torch.from_numpy(out).permute(2, 0, 1)[None]


def by_grid(pixels: np.ndarray, curves: Curves, table: np.ndarray, out: np.ndarray) -> None:
    """Photograph (H, W, 3) uint8 by curves on a grid, then ``table`` if any, into ``out``."""
    height, width = pixels.shape[:2]
    source, target = pixels.reshape(height, 3 * width), out.reshape(height, 3 * width)
    sides = [curves.places(slice(0, side), side, axis) for axis, side in enumerate((height, width))]
    places = [each.numpy() for side in sides for each in side]

    def share(part: range) -> None:
        _by_grid(source, target, curves.values, *places, table, part.start, part.stop)

    parallel(share, shares(height))


def shares(count: int) -> Sequence[range]:
    """Rows 0 … count − 1 in at most as many parts as there are threads."""
    each = math.ceil(count / min(count, torch.get_num_threads()))
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


if numba:
    from zdce.engine.vectors import apply_curve, machine_code, through

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
                scale = 1.0 / (255.0 * (right - left) * (stop - row * factor))
                for c in range(3):
                    total = np.uint32(0)
                    for x in range(left, right):
                        total += sums[3 * x + c]
                    out[row, column, c] = total * scale

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
    def _by_grid(source, target, curves, row, row_share, column, column_share, table, first, last):
        both = np.empty((2, source.shape[1]), np.float32)
        above, below = both[0], both[1]
        for y in range(first, last):
            if y == first or row[y] != row[y - 1]:
                after = min(row[y] + 1, curves.shape[0] - 1)
                _stretch(curves[row[y]], column, column_share, above)
                _stretch(curves[after], column, column_share, below)
            _row_by_grid(source[y], target[y], above, below, row_share[y])
            if table.shape[0]:
                through(target[y], table)

    @machine_code
    def _row_by_grid(source, target, above, below, share):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            a = above[i] + share * (below[i] - above[i])
            x = apply_curve(x, a, ITERATIONS)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))
