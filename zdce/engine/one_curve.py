"""One curve for a whole photograph as machine code: search, guided filter and curve.

One walk down the photograph, in steps that follow each other closely: blocks of 4 × 4 pixels are
summed up, turned into slopes and offsets (:func:`zdce.postprocess.guided_filter`), brings these to
every pixel and applies filter, protection and curve. Any depth. Source: ours.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from zdce import auto, postprocess
from zdce.engine.tiling import parallel
from zdce.engine.vectors import numba

BLOCK = postprocess.FILTER_BLOCK
ITERATIONS = auto.ITERATIONS  # known to the compiler
BAND = 64  # rows of blocks that a thread takes at a time
RING = 4  # rows of blocks that are kept of each step; three are read together
PLANES = 6  # slopes and offsets of R, G, B; or their means and those of luma · R, G, B


def search(points: Tensor) -> Tensor:
    """:func:`zdce.auto.search` of one photograph's points, (1, 3, h, w) in [0, 1]."""
    asked, plain = float(auto.target_mean(points)), points[0].flatten(1).numpy()
    dark = asked > float(points.mean())
    return torch.tensor([_bisect(plain, asked, auto.LIMIT, auto.HALVINGS) if dark else 0.0])


def render(pixels: np.ndarray, out: np.ndarray, r: float, noise: np.ndarray) -> None:
    """Photograph (H, W, 3) into ``out``, its like, by r and noise (256,) of :mod:`zdce.auto`."""
    height, width = pixels.shape[:2]
    top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    centre = pixels[:: max(1, height // 32), :: max(1, width // 32)].mean() / top
    numbers = np.array([r, centre, postprocess.FILTER_FLOOR], np.float32)
    source, target = pixels.reshape(height, -1), out.reshape(height, -1)
    blocks, filtered = math.ceil(height / BLOCK), bool((noise > 0).any())
    each = min(BAND, math.ceil(blocks / 2))

    def band(first: int) -> None:
        _walk(source, target, first, min(first + each, blocks), noise, numbers, filtered)

    parallel(band, range(0, blocks, each))


if numba:
    from zdce.engine.vectors import INT, LANES, TOPS, VECTOR, apply_curve, kernel, machine_code

    _RED, _GREEN, _BLUE = (np.float32(x) for x in postprocess.LUMA)

    def _luma(c, rgb: list):
        return c.fma(float(_RED), rgb[0], c.fma(float(_GREEN), rgb[1], c.times(_BLUE, rgb[2])))

    def _pixels(c, address, kind: int, number):
        """The address of pixel LANES · number."""
        return c.at(address, 3 * LANES * 2**kind, number)

    @kernel(6, 0, 1, 2)
    def _moments(c, kind, rows, lines, numbers, out, apart, count):
        """Sums over blocks of 4 pixels of up to four rows, six planes ``apart`` bytes apart."""
        centre = c.spread(numbers, 4)
        with c.loop(count) as n:

            def add(row, sums):
                start = c.load(c.at(rows, 8, row), 0, INT, 8)
                rgb = c.read(_pixels(c, start, kind, n), kind)
                rgb = [c.minus(x, centre) for x in rgb]
                guide = _luma(c, rgb)
                means = [c.plus(x, s) for x, s in zip(rgb, sums[:3], strict=True)]
                return means + [c.fma(guide, x, s) for x, s in zip(rgb, sums[3:], strict=True)]

            for k, total in enumerate(c.repeat(lines, [c.number(0)] * PLANES, add)):
                for near in (1, 2):
                    total = c.plus(total, c.pick(total, total, [j ^ near for j in range(LANES)]))
                quarter = c.pick(total, total, list(range(0, LANES, BLOCK)))
                c.store(quarter, c.at(c.at(out, k, apart), LANES, n))

    def _enlarged(c, line):
        """Values at blocks, from the one before on, bilinearly at the pixels of a vector."""
        points = c.load(line)
        before = [(j + BLOCK // 2) // BLOCK for j in range(LANES)]
        left = c.pick(points, points, before)
        right = c.pick(points, points, [j + 1 for j in before])
        share = VECTOR([((j + 0.5) / BLOCK + 0.5) % 1 for j in range(LANES)])
        return c.fma(share, c.minus(right, left), left)

    @kernel(6, *itertools.product((0, 1, 2), (False, True)))
    def _bent(c, how, source, lines, apart, numbers, out, count):
        """``count`` vectors of a row of pixels through filter, protection and curve."""
        kind, filtered = how
        zero, one = c.number(0), c.number(1)
        r, centre = c.spread(numbers), c.spread(numbers, 4)

        def filter_(rgb, n):
            plane = [c.at(c.at(lines, LANES, n), k, apart) for k in range(PLANES)]
            found = [_enlarged(c, line) for line in plane]
            guide = c.minus(_luma(c, rgb), centre)
            both = zip(found[:3], found[3:], strict=True)
            rgb = [c.fma(a, guide, c.plus(b, centre)) for a, b in both]
            return [c.smaller(c.larger(x, zero), one) for x in rgb]

        with c.loop(count) as n:
            rgb = c.read(_pixels(c, source, kind, n), kind)
            rgb = filter_(rgb, n) if filtered else rgb
            m = c.larger(c.larger(rgb[0], rgb[1]), rgb[2])
            rho = c.fma(c.builder.fneg(r), c.builder.fmul(c.builder.fmul(m, m), m), r)
            for _ in range(ITERATIONS):
                rgb = [c.curve(x, rho) for x in rgb]
            c.write(rgb, _pixels(c, out, kind, n), kind)

    @machine_code
    def _bisect(points, asked, limit, halvings):
        count = points.shape[1]
        protection, sums = np.empty(count, np.float32), np.empty(count, np.float32)
        for i in range(count):
            m = max(max(points[0, i], points[1, i]), points[2, i])
            protection[i] = np.float32(1) - m * m * m
        low, high = -limit, 0.0
        for _ in range(halvings):
            middle = (low + high) / 2
            r = np.float32(middle)
            for k in range(3):
                line = points[k]
                for i in range(count):
                    x = apply_curve(line[i], r * protection[i], ITERATIONS)
                    sums[i] = x if k == 0 else sums[i] + x
            reached = 0.0
            for i in range(count):
                reached += sums[i]
            too_dark = reached < asked * 3 * count
            low, high = (low, middle) if too_dark else (middle, high)
        return (low + high) / 2

    @machine_code
    def _block_row(source, block, numbers, out):
        """Means of the six moments over a row of blocks, from column 1 of each plane on."""
        kind, width, first = source.itemsize // 2, source.shape[1] // 3, BLOCK * block
        lines, whole = min(BLOCK, source.shape[0] - first), width // LANES
        rows = np.empty(BLOCK, np.int64)
        for k in range(lines):
            rows[k] = source[first + k].ctypes.data
        at, into, step = rows.ctypes.data, out.ctypes.data + 4, out.strides[0]
        _moments(kind, at, lines, numbers.ctypes.data, into, step, whole)
        done = 3 * LANES * whole
        if done < 3 * width:  # pixels behind the last are as the centre: they add nothing
            ends, scale = np.full((BLOCK, 3 * LANES), numbers[1]), np.float32(1 / TOPS[kind])
            for k in range(lines):
                for i in range(done, 3 * width):
                    ends[k, i - done] = source[first + k, i] * scale
                rows[k] = ends[k].ctypes.data
            _moments(2, at, lines, numbers.ctypes.data, into + LANES * whole, step, 1)
        blocks = (width + BLOCK - 1) // BLOCK
        full, cut = np.float32(1 / (lines * BLOCK)), width - BLOCK * (blocks - 1)
        for k in range(PLANES):
            line = out[k]
            for x in range(1, blocks):
                line[x] *= full
            line[blocks] *= np.float32(1 / (lines * cut))
            line[blocks + 1] = 0

    @machine_code
    def _box(ring, block, last, blocks, total, out):
        """Means over 3 × 3 blocks, or what is there of them, columns 1 … blocks of six planes."""
        first, past = max(0, block - 1), min(last, block + 1) + 1
        share = np.float32(1 / (3 * (past - first)))
        for k in range(PLANES):
            total[:] = ring[first % RING, k]
            for row in range(first + 1, past):
                line = ring[row % RING, k]
                for x in range(blocks + 2):
                    total[x] += line[x]
            line = out[k]
            for x in range(1, blocks + 1):
                line[x] = (total[x - 1] + total[x] + total[x + 1]) * share
            if blocks > 1:
                line[1] *= np.float32(1.5)
                line[blocks] *= np.float32(1.5)
            else:
                line[1] *= np.float32(3)

    @machine_code
    def _solve(means, blocks, noise, numbers, spare, out):
        """Slopes and offsets from the means of the moments in windows, columns 1 … blocks."""
        red, green, blue = means[0], means[1], means[2]
        of_red, of_green, of_blue = means[3], means[4], means[5]
        guide, power = spare[0], spare[1]
        for x in range(1, blocks + 1):
            g = _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
            level = np.int32((g + numbers[1]) * np.float32(255) + np.float32(0.5))
            deviation = noise[min(max(level, 0), 255)]
            guide[x], power[x] = g, deviation * deviation
        a, b, c, d, e, f = out[0], out[1], out[2], out[3], out[4], out[5]
        for x in range(1, blocks + 1):
            g = guide[x]
            with_red = of_red[x] - g * red[x]
            with_green = of_green[x] - g * green[x]
            with_blue = of_blue[x] - g * blue[x]
            variance = _RED * with_red + _GREEN * with_green + _BLUE * with_blue
            share = np.float32(1) / (max(variance, np.float32(0)) + power[x] + numbers[2])
            a[x], b[x], c[x] = with_red * share, with_green * share, with_blue * share
            d[x], e[x], f[x] = red[x] - a[x] * g, green[x] - b[x] * g, blue[x] - c[x] * g

    @machine_code
    def _finish_row(source, target, filtered, line, numbers, ends):
        """A row of pixels through filter and curve."""
        step, lines, apart = 3 * LANES, line.ctypes.data, line.strides[0]
        whole = source.shape[0] // step
        rest = source.shape[0] - step * whole
        ends[:rest] = source[step * whole :]  # by way of a vector that is long enough
        parts = ((source, target, 0, whole), (ends, ends, whole, int(rest > 0)))
        for before, after, first, count in parts:
            at, how = lines + LANES * first, 2 * (source.itemsize // 2) + filtered
            places = before.ctypes.data, at, apart, numbers.ctypes.data, after.ctypes.data
            _bent(how, *places, count)
        target[step * whole :] = ends[:rest]

    @machine_code
    def _walk(source, target, first, last, noise, numbers, filtered):
        """Rows of blocks ``first`` … ``last`` − 1 of a photograph, from pixels to pixels."""
        height, width = source.shape[0], source.shape[1] // 3
        blocks, bottom = (width + BLOCK - 1) // BLOCK, (height + BLOCK - 1) // BLOCK - 1
        room = blocks + 2 + LANES
        moments = np.zeros((RING, PLANES, room), np.float32)
        slopes, lines = np.zeros_like(moments), np.zeros_like(moments)
        more = np.zeros((3, PLANES, room), np.float32)
        means, line, spare = more[0], more[1], more[2]
        ends = np.zeros(3 * LANES, source.dtype)
        for n in range(max(0, first - 3), last + 3):  # each step a row of blocks behind the former
            if filtered and n <= bottom:
                _block_row(source, n, numbers, moments[n % RING])
            if filtered and max(0, first - 2) <= n - 1 <= bottom:
                _box(moments, n - 1, bottom, blocks, spare[0], means)
                _solve(means, blocks, noise, numbers, spare, slopes[(n - 1) % RING])
            if filtered and max(0, first - 1) <= n - 2 <= bottom:
                found = lines[(n - 2) % RING]
                _box(slopes, n - 2, bottom, blocks, spare[0], found)
                for k in range(PLANES):
                    found[k, 0], found[k, blocks + 1 :] = found[k, 1], found[k, blocks]
            for y in range(BLOCK * max(n - 3, first), min(BLOCK * (n - 2), height)):
                before = (y + BLOCK // 2) // BLOCK - 1
                share = np.float32((y + 0.5) / BLOCK - 0.5 - before)
                upper = lines[max(before, 0) % RING]
                lower = lines[min(before + 1, bottom) % RING]
                for k in range(PLANES if filtered else 0):
                    a, b, out = upper[k], lower[k], line[k]
                    for x in range(room):
                        out[x] = a[x] + share * (b[x] - a[x])
                _finish_row(source[y], target[y], filtered, line, numbers, ends)
