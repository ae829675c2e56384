"""Pixels to brighter pixels on the processor as machine code (numba): tables, filter and threads.

What it computes is what :mod:`zdce.engine.reference` defines; whatever it does not know is left to
that. Source: ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from zdce.engine import winograd
from zdce.engine.reference import Curves, Reference
from zdce.engine.tiling import Tile, parallel
from zdce.engine.winograd import Winograd
from zdce.model import (
    BLOCKS,
    LUMA,
    NOISE_QUANTILE,
    POINTS,
    SMOOTH_RADIUS,
    CurveNet,
    Sample,
    block_places,
)
from zdce.postprocess import blend, gamma_table

try:
    import numba
except ImportError:  # the extra "fast" is not installed
    numba = None

ALONE = 2**18  # pixels up to which one thread renders: a second one takes longer to begin
BAND = 128  # rows, at most, that are filtered and bent by one thread at a time
SAMPLES = 768  # of a row at a time, so that their curves stay in the nearest memory


class Compiled(Reference):
    """The reference's results from machine code: 8 bits in one pass, convolutions by Winograd's way.

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
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or gray:
            return super().render(pixels, curves, **options)
        pixels = np.require(pixels, requirements=["C"])
        curves = self.curves(pixels) if curves is None else curves
        if curves is None and not (self.winograd and self.winograd.in_one_pass):
            return super().render(pixels, **options)
        table = None if gamma == 1 else gamma_table(gamma)
        out = np.empty_like(pixels) if out is None else out
        if curves is not None:
            bend(pixels, curves.arrays(), table, out)
        else:
            parts = self._tiles(pixels, None)
            finish = self.winograd.finish
            parallel(lambda tile: finish(pixels, out, tile.rows, tile.columns, table), parts)

        def mix(tile: Tile) -> None:
            at = (tile.rows, tile.columns)
            out[at] = blend(pixels[at], out[at], strength)

        if strength != 1:
            parallel(mix, self._tiles(pixels, None))
        return out

    def enhanced(self, source: Tensor, curves: Curves | None, tile: Tile) -> Tensor:
        """As :meth:`Reference.enhanced`, of which convolutions round alike in any part."""
        if curves is None and self.winograd:
            tile = self.winograd.around(tile, *source.shape[:2])
        return super().enhanced(source, curves, tile)

    def estimate(self, image: Tensor, sample: Sample | None = None) -> Tensor:
        """As :meth:`Reference.estimate`."""
        if self.winograd is None:
            return super().estimate(image, sample)
        return self.net._estimate(image, self.winograd.curves, sample)

    def sample(self, pixels: Tensor) -> Sample:
        """As :meth:`Reference.sample`; no more of the photograph is read."""
        pixels = pixels.numpy()
        rows, columns = (block_places(size).numpy() for size in pixels.shape[:2])
        energy = np.empty(BLOCKS * BLOCKS, np.float32)
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        _energies(pixels, rows, columns, np.array(LUMA, np.float32) * np.float32(255 / top), energy)
        noise = torch.quantile(torch.from_numpy(energy)[None], NOISE_QUANTILE, dim=1).sqrt()
        points = pixels[rows[:, POINTS].reshape(-1, 1), columns[:, POINTS].reshape(-1)]
        points = torch.from_numpy(points.astype(np.float32)).permute(2, 0, 1)[None]
        return Sample(points.contiguous().div_(float(top)), noise)

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


def can_run(net: nn.Module) -> bool:
    """Whether :class:`Compiled` has machine code for a network; needs numba."""
    return numba is not None and isinstance(net, CurveNet)


def bend(
    pixels: np.ndarray, curves: Curves, table: np.ndarray | None, out: np.ndarray | None = None
) -> np.ndarray:
    """Photograph (H, W, 3) uint8 after filter and curves, rounded, then through ``table``.

    One pass from 8 bits to 8 bits. Rounding is the released code's: x·255 + 0.5, truncated.
    """
    height, width = pixels.shape[:2]
    out = np.empty(pixels.shape, np.uint8) if out is None else out
    source, target = pixels.reshape(height, 3 * width), out.reshape(height, 3 * width)
    rows, columns = curves.places(height, 0), curves.places(width, 1)
    table, plain = (table, False) if table is not None else (np.empty(0, np.uint8), True)
    values = np.repeat(curves.values, curves.repeated, axis=2)
    plainly = curves.noise is None and not curves.highlight_protection
    noise = np.zeros(values.shape[:2], np.float32) if curves.noise is None else curves.noise
    alike = values.shape[2] == 8 and bool((values == values[0, 0, :, :1]).all())
    centre = np.float32(0 if curves.noise is None else pixels[:: max(1, height // 64)].mean() / 255)

    def share(part: range) -> None:
        places = (*rows, *columns, table, plain, part.start, part.stop)
        if plainly:
            _bend(source, target, curves.values, curves.repeated, *places)
        else:
            more = (centre, SMOOTH_RADIUS, curves.highlight_protection, alike)
            _smooth_and_bend(source, target, values, noise, *places, *more)

    whole = (
        plainly  # running sums round by where they began: not dependent on the number of threads
    )
    each = math.ceil(
        height / (2 * math.ceil(height / (2 * BAND)))
    )  # an even number of bands, all alike
    bands = [range(start, min(start + each, height)) for start in range(0, height, each)]
    parallel(share, shares(height, height * width) if whole else bands)
    return out


def shares(count: int, pixels: float = math.inf) -> Sequence[range]:
    """Rows 0 … count − 1 in as many parts as there are threads; each row's result is its own.

    pixels: of all rows, few of which are done by one thread before another has begun.
    """
    threads = torch.get_num_threads() if pixels > ALONE else 1
    each = math.ceil(count / min(count, threads))
    return [range(start, min(start + each, count)) for start in range(0, count, each)]


if numba:
    _machine_code = numba.njit(
        nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"}
    )

    @_machine_code
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

    @_machine_code
    def _energies(pixels, rows, columns, weights, out):
        """Of each block, the mean square of its luma's diagonal second differences (``model.measured_noise``)."""
        wide = np.empty((2, columns.shape[1]), np.float32)
        for i in range(rows.shape[0]):
            for j in range(columns.shape[0]):
                total = np.float32(0)
                for k in range(0, rows.shape[1], 2):
                    for half in range(2):
                        line = pixels[rows[i, k + half]]
                        for x in range(columns.shape[1]):
                            at = columns[j, x]
                            wide[half, x] = (
                                weights[0] * line[at, 0]
                                + weights[1] * line[at, 1]
                                + weights[2] * line[at, 2]
                            )
                    for x in range(0, columns.shape[1], 2):
                        d = wide[0, x] - wide[0, x + 1] - wide[1, x] + wide[1, x + 1]
                        total += d * d
                out[i * columns.shape[0] + j] = total / np.float32(rows.shape[1] * columns.shape[1])

    @_machine_code
    def _stretch(points, before, share, out):
        """A row of the grid (w, iterations, 3) for every sample of a row of pixels: (iterations, 3·width)."""
        for k in range(out.shape[0]):
            line = out[k]
            for x in range(before.shape[0]):
                left = before[x]
                right = min(left + 1, points.shape[0] - 1)
                for c in range(3):
                    a = points[left, k, c]
                    line[3 * x + c] = a + share[x] * (points[right, k, c] - a)

    @_machine_code
    def _bend_eight(source, target, above, below, share):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            for k in range(8):
                a = above[k, i]
                x += (a + share * (below[k, i] - a)) * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend_shared(source, target, above, below, share):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            a = above[i] + share * (below[i] - above[i])
            for _ in range(8):
                x += a * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend_any(source, target, above, below, share, repeated):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            for k in range(above.shape[0]):
                a = above[k, i] + share * (below[k, i] - above[k, i])
                for _ in range(repeated):
                    x += a * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend(
        source,
        target,
        curves,
        repeated,
        row,
        row_share,
        column,
        column_share,
        table,
        plain,
        first,
        last,
    ):
        samples, iterations = source.shape[1], curves.shape[2]
        above = np.empty((iterations, samples), np.float32)
        below = np.empty((iterations, samples), np.float32)
        held, y = -1, first
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
            for a in range(0, samples, SAMPLES):
                b = min(a + SAMPLES, samples)
                for r in range(y, stop):
                    pixels, bent, share = source[r, a:b], target[r, a:b], row_share[r]
                    if iterations == 1 and repeated == 8:
                        _bend_shared(pixels, bent, above[0, a:b], below[0, a:b], share)
                    elif iterations == 8 and repeated == 1:
                        _bend_eight(pixels, bent, above[:, a:b], below[:, a:b], share)
                    else:
                        _bend_any(pixels, bent, above[:, a:b], below[:, a:b], share, repeated)
                    if not plain:
                        winograd.through(bent, table)
            y = stop

    @_machine_code
    def _moments(line, centre, out):
        """Of a row of pixels, as planes (6, width): luma about ``centre``, R − Y, B − Y, and the luma times each."""
        third = np.float32(1 / 255)
        for x in range(out.shape[1]):
            red, green, blue = line[3 * x] * third, line[3 * x + 1] * third, line[3 * x + 2] * third
            luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
            g = luma - centre
            out[0, x], out[1, x], out[2, x] = g, red - luma, blue - luma
            out[3, x], out[4, x], out[5, x] = g * g, g * (red - luma), g * (blue - luma)

    @_machine_code
    def _across(padded, radius, out):
        """Sums over 2·radius + 1 neighbours in a row, of planes padded by ``radius`` zeros on either side."""
        for k in range(out.shape[0]):
            line, sums = padded[k], out[k]
            if radius == 4:  # the same sums in one pass
                for x in range(sums.shape[0]):
                    near = line[x] + line[x + 1] + line[x + 2] + line[x + 3] + line[x + 4]
                    sums[x] = near + line[x + 5] + line[x + 6] + line[x + 7] + line[x + 8]
                continue
            for x in range(sums.shape[0]):
                sums[x] = line[x]
            for shift in range(1, 2 * radius + 1):
                for x in range(sums.shape[0]):
                    sums[x] += line[x + shift]

    @_machine_code
    def _slopes(sums, per_pixel, rows, level, out):
        """The guided filter's slopes and offsets for luma, R − Y and B − Y, planes (6, width), from sums of moments."""
        for x in range(out.shape[1]):
            share = per_pixel[x] * rows
            g, red, blue = sums[0, x] * share, sums[1, x] * share, sums[2, x] * share
            variance = sums[3, x] * share - g * g
            noise = level[x] * level[x]
            safe = max(variance, np.float32(0)) + np.float32(1e-9)
            luma = variance / (safe + noise)
            colour = np.float32(1) / (safe + np.float32(36) * noise)
            slope_red, slope_blue = (
                (sums[4, x] * share - red * g) * colour,
                (sums[5, x] * share - blue * g) * colour,
            )
            out[0, x], out[1, x], out[2, x] = luma, slope_red, slope_blue
            out[3, x], out[4, x], out[5, x] = (
                g - luma * g,
                red - slope_red * g,
                blue - slope_blue * g,
            )

    @_machine_code
    def _filtered(line, sums, per_pixel, rows, level, centre, out):
        """A row of pixels (3·width) in [0, 1] by slopes and offsets, summed over their neighbourhood."""
        third, zero, one = np.float32(1 / 255), np.float32(0), np.float32(1)
        for x in range(per_pixel.shape[0]):
            share = per_pixel[x] * rows
            red, green, blue = line[3 * x] * third, line[3 * x + 1] * third, line[3 * x + 2] * third
            if level[x] > 0:
                luma = (
                    np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
                )
                g = luma - centre
                luma = (sums[0, x] * g + sums[3, x]) * share + centre
                red = (sums[1, x] * g + sums[4, x]) * share + luma
                blue = (sums[2, x] * g + sums[5, x]) * share + luma
                green = (luma - np.float32(0.299) * red - np.float32(0.114) * blue) * np.float32(
                    1 / 0.587
                )
            out[3 * x] = min(max(red, zero), one)
            out[3 * x + 1] = min(max(green, zero), one)
            out[3 * x + 2] = min(max(blue, zero), one)

    @_machine_code
    def _weights(values, out):
        """1 − m³ of every pixel's largest channel, for its three samples."""
        for x in range(values.shape[0] // 3):
            m = max(max(values[3 * x], values[3 * x + 1]), values[3 * x + 2])
            weight = np.float32(1) - m * m * m
            out[3 * x], out[3 * x + 1], out[3 * x + 2] = weight, weight, weight

    @_machine_code
    def _bend_alike(values, target, curve, weights):
        """As :func:`_bend_line`, where all pixels have the same eight curves."""
        a, b, c, d, e, f, g, h = (
            curve[0],
            curve[1],
            curve[2],
            curve[3],
            curve[4],
            curve[5],
            curve[6],
            curve[7],
        )
        for i in range(values.shape[0]):
            x, w = values[i], weights[i]
            x += w * a * (x * x - x)
            x += w * b * (x * x - x)
            x += w * c * (x * x - x)
            x += w * d * (x * x - x)
            x += w * e * (x * x - x)
            x += w * f * (x * x - x)
            x += w * g * (x * x - x)
            x += w * h * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _bend_line(values, target, above, below, share, weights):
        for k in range(above.shape[0]):
            one, other = above[k], below[k]
            for i in range(values.shape[0]):
                x = values[i]
                values[i] = x + weights[i] * (one[i] + share * (other[i] - one[i])) * (x * x - x)
        for i in range(values.shape[0]):
            target[i] = np.uint8(np.int32(values[i] * np.float32(255) + np.float32(0.5)))

    @_machine_code
    def _add(planes, padded, radius, sign):
        for k in range(planes.shape[0]):
            line, sums = planes[k], padded[k]
            for x in range(line.shape[0]):
                sums[x + radius] += sign * line[x]

    @_machine_code
    def _levels(noise, before, share, column, column_share, out):
        low, high = noise[before], noise[min(before + 1, noise.shape[0] - 1)]
        for x in range(out.shape[0]):
            left = column[x]
            right = min(left + 1, noise.shape[1] - 1)
            a = low[left] + share * (high[left] - low[left])
            b = low[right] + share * (high[right] - low[right])
            out[x] = a + column_share[x] * (b - a)

    @_machine_code
    def _smooth_and_bend(
        source,
        target,
        curves,
        noise,
        row,
        row_share,
        column,
        column_share,
        table,
        plain,
        first,
        last,
        centre,
        radius,
        spared,
        alike,
    ):
        """Rows ``first`` … ``last`` − 1: :func:`zdce.model.smoothed`, then the curves, in one walk down the rows."""
        height, samples = source.shape
        width, iterations, ring = samples // 3, curves.shape[2], 2 * radius + 2
        moments = np.empty((ring, 6, width), np.float32)
        slopes = np.empty((ring, 6, width), np.float32)
        moment_sums = np.zeros((6, width + 2 * radius), np.float32)
        slope_sums = np.zeros((6, width + 2 * radius), np.float32)
        sums = np.empty((6, width), np.float32)
        levels, values = np.empty((ring, width), np.float32), np.empty(samples, np.float32)
        per_pixel, weights = np.empty(width, np.float32), np.ones(samples, np.float32)
        for x in range(width):
            per_pixel[x] = 1 / (min(x + radius, width - 1) - max(x - radius, 0) + 1)
        above = np.empty((iterations, samples), np.float32)
        below = np.empty((iterations, samples), np.float32)
        held = -1
        lowest_moment, next_moment = max(0, first - 2 * radius), max(0, first - 2 * radius)
        lowest_slope, next_slope = max(0, first - radius), max(0, first - radius)
        for y in range(first, last):
            while next_slope <= min(height - 1, y + radius):
                s = next_slope
                while next_moment <= min(height - 1, s + radius):
                    _moments(source[next_moment], centre, moments[next_moment % ring])
                    _add(moments[next_moment % ring], moment_sums, radius, np.float32(1))
                    next_moment += 1
                while lowest_moment < s - radius:
                    _add(moments[lowest_moment % ring], moment_sums, radius, np.float32(-1))
                    lowest_moment += 1
                _across(moment_sums, radius, sums)
                _levels(noise, row[s], row_share[s], column, column_share, levels[s % ring])
                rows = np.float32(1 / (next_moment - lowest_moment))
                _slopes(sums, per_pixel, rows, levels[s % ring], slopes[s % ring])
                _add(slopes[s % ring], slope_sums, radius, np.float32(1))
                next_slope += 1
            while lowest_slope < y - radius:
                _add(slopes[lowest_slope % ring], slope_sums, radius, np.float32(-1))
                lowest_slope += 1
            _across(slope_sums, radius, sums)
            rows = np.float32(1 / (next_slope - lowest_slope))
            _filtered(source[y], sums, per_pixel, rows, levels[y % ring], centre, values)
            if spared:
                _weights(values, weights)
            if alike:
                _bend_alike(values, target[y], curves[0, 0, :, 0], weights)
            else:
                if held != row[y]:
                    held = row[y]
                    _stretch(curves[held], column, column_share, above)
                    _stretch(
                        curves[min(held + 1, curves.shape[0] - 1)], column, column_share, below
                    )
                _bend_line(values, target[y], above, below, row_share[y], weights)
            if not plain:
                winograd.through(target[y], table)
