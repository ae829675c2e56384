"""One curve for a whole photograph as machine code: sample, search, guided filter and curve.

Two walks down the photograph that follow each other closely: one sums up blocks of 4 × 4 pixels,
the other turns blocks into slopes and offsets (:func:`zdce.postprocess.guided_filter`), brings them
to every pixel and applies filter, highlight protection and curve. 8 bits, 16 bits and floats are
read and written as they are. Source: ours.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from torch import Tensor

from zdce import auto, postprocess
from zdce.engine.tiling import parallel
from zdce.engine.vectors import numba

BLOCK = postprocess.FILTER_BLOCK
KINDS = {np.dtype(np.uint8): 0, np.dtype(np.uint16): 1, np.dtype(np.float32): 2}
TOPS = (255, 65535, 1)  # the value of each kind that stands for 1
ITERATIONS = auto.ITERATIONS  # known to the compiler
BAND = 64  # rows of blocks that a thread takes at a time
RING = 4  # rows of blocks that are kept of each step; three are read together
PLANES = (
    6  # slopes of R, G, B in the luma and their offsets; or their means and those of luma · R, G, B
)


def search(points: Tensor) -> float:
    """:func:`zdce.auto.search` of one photograph's points, (1, 3, h, w) in [0, 1]."""
    asked = float(auto.target_mean(points))
    if not asked > float(points.mean()):
        return 0.0
    plain = points[0].flatten(1).contiguous().numpy()
    return float(_bisect(plain, asked, auto.LIMIT, auto.HALVINGS))


def estimate_noise(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """:func:`zdce.postprocess.estimate_noise` of the blocks (32, 16) that rows and columns name."""
    side, kind = postprocess.NOISE_BLOCK, KINDS[pixels.dtype]
    energy = np.empty(len(rows) * len(columns), np.float32)
    size = pixels.itemsize
    _energies(pixels.ctypes.data, pixels.strides[0], size, kind, rows[:, 0], columns[:, 0], energy)
    energy *= np.float32(255**2 / (2 * 4 * (side // 2) ** 2))
    at = postprocess.NOISE_QUANTILE * (len(energy) - 1)
    low, high = np.partition(energy, (int(at), int(at) + 1))[int(at) : int(at) + 2]
    return math.sqrt(low + (at - int(at)) * (high - low))


def render(pixels: np.ndarray, out: np.ndarray, r: float, noise: np.ndarray) -> None:
    """Photograph (H, W, 3) through filter and curve into ``out``, its like, rounded if not floats.

    r, noise (256,): as in :class:`zdce.auto.Curve`.
    """
    height, width = pixels.shape[:2]
    kind, filtered = KINDS[pixels.dtype], bool((noise > 0).any())
    centre = pixels[:: max(1, height // 32), :: max(1, width // 32)].mean() / TOPS[kind]
    numbers = np.array([r, centre, postprocess.FILTER_FLOOR], np.float32)
    places = (pixels.ctypes.data, pixels.strides[0], out.ctypes.data, out.strides[0])
    noise = np.ascontiguousarray(noise, np.float32)

    def band(first: int) -> None:
        last = min(first + each, blocks)
        shape = (pixels.itemsize, kind, height, width, first, last)
        _walk(*places, *shape, noise, numbers, filtered)

    blocks = math.ceil(height / BLOCK)
    each = min(BAND, math.ceil(blocks / 2))
    if height * width < 2**16:  # another thread takes longer to begin
        each = blocks
    parallel(band, range(0, blocks, each))


if numba:
    from llvmlite import ir

    from zdce.engine.vectors import (
        FLOAT,
        INT,
        LANES,
        VECTOR,
        Code,
        floats,
        kernel_of_kinds,
        machine_code,
        octets,
        words,
    )

    _RED, _GREEN, _BLUE = (np.float32(x) for x in postprocess.LUMA)
    _STORED = (ir.IntType(8), ir.IntType(16), FLOAT)
    _WHOLE = ir.VectorType(ir.IntType(32), LANES)

    def _read(c: Code, address, kind: int) -> list:
        """R, G and B in [0, 1] of as many pixels as there are lanes."""
        stored = c.load(address, 0, ir.VectorType(_STORED[kind], 3 * LANES), 4 if kind == 2 else 1)
        planes = [c.pick(stored, stored, [3 * n + k for n in range(LANES)]) for k in range(3)]
        if kind == 2:
            return planes
        planes = [c.builder.sitofp(c.builder.zext(x, _WHOLE), VECTOR) for x in planes]
        return [c.times(np.float32(1 / TOPS[kind]), x) for x in planes]

    def _write(c: Code, planes: list, address, kind: int) -> None:
        """What :func:`_read` reads; integers are x·top + 0.5, truncated."""
        if kind < 2:
            whole = (c.fma(TOPS[kind], x, c.number(0.5)) for x in planes)
            stored = ir.VectorType(_STORED[kind], LANES)
            planes = [c.builder.trunc(c.builder.fptosi(x, _WHOLE), stored) for x in whole]
        first = c.pick(planes[0], planes[1], list(range(2 * LANES)))
        last = c.pick(planes[2], planes[2], list(range(LANES)) * 2)
        order = [n // 3 + LANES * (n % 3) for n in range(3 * LANES)]
        c.store(c.pick(first, last, order), address)

    def _luma(c: Code, rgb: list):
        return c.fma(float(_RED), rgb[0], c.fma(float(_GREEN), rgb[1], c.times(_BLUE, rgb[2])))

    def _pixels(c: Code, address, kind: int, number):
        """The address of pixel LANES · number."""
        return c.at(address, 3 * LANES * (1, 2, 4)[kind], number)

    @kernel_of_kinds(6, 0, 1, 2)
    def _moments(c, kind, rows, lines, numbers, out, apart, count):
        """Sums over blocks of 4 pixels of up to four rows, six planes ``apart`` bytes apart.

        rows: where their addresses stand; numbers: where r and the centre stand; ``count`` vectors.
        """
        centre = c.spread(numbers, 4)

        def step(n, _):
            def add(row, sums):
                start = c.load(c.at(rows, 8, row), 0, INT, 8)
                rgb = _read(c, _pixels(c, start, kind, n), kind)
                rgb = [c.minus(x, centre) for x in rgb]
                guide = _luma(c, rgb)
                means = [c.plus(x, s) for x, s in zip(rgb, sums[:3], strict=True)]
                return means + [c.fma(guide, x, s) for x, s in zip(rgb, sums[3:], strict=True)]

            for k, total in enumerate(c.repeat(lines, [c.number(0)] * PLANES, add)):
                for near in (1, 2):
                    total = c.plus(total, c.pick(total, total, [j ^ near for j in range(LANES)]))
                quarter = c.pick(total, total, list(range(0, LANES, BLOCK)))
                c.store(quarter, c.at(c.at(out, k, apart), LANES, n))
            return []

        c.repeat(count, [], step)

    def _enlarged(c: Code, line):
        """Values at blocks, from the one before on, bilinearly at the pixels of a vector."""
        points = c.load(line)
        before = [(j + BLOCK // 2) // BLOCK for j in range(LANES)]
        left = c.pick(points, points, before)
        right = c.pick(points, points, [j + 1 for j in before])
        share = VECTOR([((j + 0.5) / BLOCK + 0.5) % 1 for j in range(LANES)])
        return c.fma(share, c.minus(right, left), left)

    @kernel_of_kinds(6, *itertools.product((0, 1, 2), (False, True)))
    def _bent(c, how, source, lines, apart, numbers, out, count):
        """``count`` vectors of a row of pixels through filter, protection and curve.

        how: kind, and whether there is a filter; lines: where slopes and offsets at blocks stand,
        from the block before on, ``apart`` bytes from plane to plane; numbers: where r and the
        centre stand.
        """
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

        def step(n, _):
            rgb = _read(c, _pixels(c, source, kind, n), kind)
            rgb = filter_(rgb, n) if filtered else rgb
            m = c.larger(c.larger(rgb[0], rgb[1]), rgb[2])
            rho = c.fma(c.builder.fneg(r), c.builder.fmul(c.builder.fmul(m, m), m), r)
            for _ in range(ITERATIONS):
                falls = [c.fma(x, x, c.builder.fneg(x)) for x in rgb]
                rgb = [c.fma(rho, fall, x) for fall, x in zip(falls, rgb, strict=True)]
            _write(c, rgb, _pixels(c, out, kind, n), kind)
            return []

        c.repeat(count, [], step)

    @kernel_of_kinds(4, 0, 1, 2)
    def _energy(c, kind, start, apart, size, out):
        """The sum of squares of a block's diagonal second differences, eight times it."""
        side = postprocess.NOISE_BLOCK

        def step(k, sums):
            pairs = c.builder.mul(c.builder.mul(k, INT(2)), apart)
            upper = c.builder.add(start, pairs)
            lower = c.builder.add(upper, apart)
            total = sums[0]
            for part in range(side // LANES):
                at = [_pixels(c, row, kind, INT(part)) for row in (upper, lower)]
                d = c.minus(*(_luma(c, _read(c, each, kind)) for each in at))
                d = c.minus(d, c.pick(d, d, [j ^ 1 for j in range(LANES)]))
                total = c.fma(d, d, total)
            return [total]

        (total,) = c.repeat(INT(side // 2), [c.number(0)], step)
        near = 1
        while near < LANES:
            total = c.plus(total, c.pick(total, total, [j ^ near for j in range(LANES)]))
            near *= 2
        c.store(c.pick(total, total, [0]), out)

    @machine_code
    def _energies(source, apart, size, kind, rows, columns, out):
        for i in range(rows.shape[0]):
            for j in range(columns.shape[0]):
                start = source + rows[i] * apart + 3 * size * columns[j]
                into = out.ctypes.data + 4 * (i * columns.shape[0] + j)
                _energy(kind, start, apart, size, into)

    @machine_code
    def _bisect(points, asked, limit, halvings):
        count = points.shape[1]
        protection, sums = np.empty(count, np.float32), np.empty(count, np.float32)
        for i in range(count):
            m = max(max(points[0, i], points[1, i]), points[2, i])
            protection[i] = np.float32(1) - m * m * m
        low, high = -limit, 0.0
        for _ in range(halvings):
            r = np.float32((low + high) / 2)
            for k in range(3):
                line = points[k]
                for i in range(count):
                    x, rho = line[i], r * protection[i]
                    for _ in range(ITERATIONS):
                        x += rho * (x * x - x)
                    sums[i] = x if k == 0 else sums[i] + x
            reached = 0.0
            for i in range(count):
                reached += sums[i]
            if reached < asked * 3 * count:
                high = (low + high) / 2
            else:
                low = (low + high) / 2
        return (low + high) / 2

    @machine_code
    def _block_row(source, apart, size, kind, height, width, block, numbers, ends, rows, out):
        """Means of the six moments over a row of blocks, from column 1 of each plane on.

        ends: room for four rows of as many pixels as there are lanes; rows: for four addresses.
        """
        lines, whole = min(BLOCK, height - BLOCK * block), width // LANES
        for k in range(lines):
            rows[k] = source + (BLOCK * block + k) * apart
        at, into, step = rows.ctypes.data, out.ctypes.data + 4, out.strides[0]
        _moments(kind, at, lines, numbers.ctypes.data, into, step, whole)
        rest = width - LANES * whole
        if rest:  # pixels behind the last are grey and as bright as the centre: they add nothing
            ends[:] = numbers[1]
            for k in range(lines):
                start = rows[k] + 3 * size * LANES * whole
                for i in range(3 * rest):
                    if kind == 0:
                        ends[k, i] = octets(start)[i] * np.float32(1 / 255)
                    elif kind == 1:
                        ends[k, i] = words(start)[i] * np.float32(1 / 65535)
                    else:
                        ends[k, i] = floats(start)[i]
                rows[k] = ends.ctypes.data + k * ends.strides[0]
            _moments(2, at, lines, numbers.ctypes.data, into + LANES * whole, step, 1)
        blocks = (width + BLOCK - 1) // BLOCK
        full, cut = np.float32(1 / (lines * BLOCK)), width - BLOCK * (blocks - 1)
        for k in range(out.shape[0]):
            line = out[k]
            for x in range(1, blocks):
                line[x] *= full
            line[blocks] *= np.float32(1 / (lines * cut))
            line[0], line[blocks + 1] = 0, 0

    @machine_code
    def _box(ring, block, last, blocks, sums, out):
        """Means over 3 × 3 blocks of six planes, columns 1 … blocks; at the border, over what is
        there.
        """
        count = 0
        for row in range(max(0, block - 1), min(last, block + 1) + 1):
            count += 1
            for k in range(PLANES):
                line, total = ring[row % RING, k], sums[k]
                if count == 1:
                    for x in range(blocks + 2):
                        total[x] = line[x]
                else:
                    for x in range(blocks + 2):
                        total[x] += line[x]
        share = np.float32(1 / (3 * count))
        for k in range(PLANES):
            total, line = sums[k], out[k]
            for x in range(1, blocks + 1):
                line[x] = (total[x - 1] + total[x] + total[x + 1]) * share
            if blocks > 1:
                line[1] *= np.float32(1.5)
                line[blocks] *= np.float32(1.5)
            else:
                line[1] *= np.float32(3)
            line[0], line[blocks + 1] = 0, 0

    @machine_code
    def _solve(means, blocks, noise, centre, floor, guide, power, out):
        """Slopes and offsets from the means of the moments in windows, columns 1 … blocks."""
        red, green, blue, by_red, by_green, by_blue = (
            means[0], means[1], means[2], means[3], means[4], means[5],
        )  # fmt: skip
        for x in range(1, blocks + 1):
            g = _RED * red[x] + _GREEN * green[x] + _BLUE * blue[x]
            level = np.int32((g + centre) * np.float32(255) + np.float32(0.5))
            deviation = noise[min(max(level, 0), 255)]
            guide[x], power[x] = g, deviation * deviation
        a, b, c, d, e, f = out[0], out[1], out[2], out[3], out[4], out[5]
        for x in range(1, blocks + 1):
            g = guide[x]
            of_red = by_red[x] - g * red[x]
            of_green = by_green[x] - g * green[x]
            of_blue = by_blue[x] - g * blue[x]
            variance = _RED * of_red + _GREEN * of_green + _BLUE * of_blue
            share = np.float32(1) / (max(variance, np.float32(0)) + power[x] + floor)
            a[x], b[x], c[x] = of_red * share, of_green * share, of_blue * share
            d[x], e[x], f[x] = red[x] - a[x] * g, green[x] - b[x] * g, blue[x] - c[x] * g
        for k in range(PLANES):
            out[k, 0], out[k, blocks + 1] = 0, 0

    @machine_code
    def _bend_row(source, size, kind, filtered, width, line, numbers, target, ends):
        """A row of pixels through filter and curve; ends: room for what is left of a vector."""
        whole, at = width // LANES, numbers.ctypes.data
        lines, apart = line.ctypes.data, line.strides[0]
        rest, done = width - LANES * whole, 3 * LANES * whole * size
        for part in range(2 if rest else 1):
            before, after, count = source, target, whole
            if part:
                before, after, count = ends.ctypes.data, ends.ctypes.data + ends.strides[0], 1
                lines += LANES * whole
                for i in range(3 * rest * size):
                    octets(before)[i] = octets(source + done)[i]
            _bent(2 * kind + filtered, before, lines, apart, at, after, count)
            if part:
                for i in range(3 * rest * size):
                    octets(target + done)[i] = octets(after)[i]

    @machine_code
    def _walk(
        source, apart, target, apart_out, size, kind, height, width, first, last,
        noise, numbers, filtered,
    ):  # fmt: skip
        """Rows of blocks ``first`` … ``last`` − 1 of a photograph, from pixels to pixels."""
        blocks, bottom = (width + BLOCK - 1) // BLOCK, (height + BLOCK - 1) // BLOCK - 1
        room = blocks + 2 + LANES
        moments, slopes, lines = (
            np.zeros((RING, PLANES, room), np.float32),
            np.zeros((RING, PLANES, room), np.float32),
            np.zeros((RING, PLANES, room), np.float32),
        )
        sums, means = np.empty((PLANES, room), np.float32), np.empty((PLANES, room), np.float32)
        line, spare = np.zeros((PLANES, room), np.float32), np.empty((2, room), np.float32)
        ends, rows = np.zeros((BLOCK, 3 * LANES), np.float32), np.empty(BLOCK, np.int64)
        made, solved, ready = max(0, first - 3), max(0, first - 2), max(0, first - 1)
        for block in range(first, last):
            while filtered and ready <= min(bottom, block + 1):
                while solved <= min(bottom, ready + 1):
                    while made <= min(bottom, solved + 1):
                        _block_row(
                            source, apart, size, kind, height, width, made, numbers, ends, rows,
                            moments[made % RING],
                        )  # fmt: skip
                        made += 1
                    _box(moments, solved, bottom, blocks, sums, means)
                    found = slopes[solved % RING]
                    _solve(means, blocks, noise, numbers[1], numbers[2], spare[0], spare[1], found)
                    solved += 1
                found = lines[ready % RING]
                _box(slopes, ready, bottom, blocks, sums, found)
                for k in range(PLANES):
                    found[k, 0], found[k, blocks + 1 :] = found[k, 1], found[k, blocks]
                ready += 1
            for y in range(BLOCK * block, min(BLOCK * block + BLOCK, height)):
                before = (y + BLOCK // 2) // BLOCK - 1
                share = np.float32((y + 0.5) / BLOCK - 0.5 - before)
                upper = lines[max(before, 0) % RING]
                lower = lines[min(before + 1, bottom) % RING]
                for k in range(PLANES if filtered else 0):
                    a, b, out = upper[k], lower[k], line[k]
                    for x in range(room):
                        out[x] = a[x] + share * (b[x] - a[x])
                _bend_row(
                    source + y * apart, size, kind, filtered, width, line, numbers,
                    target + y * apart_out, ends,
                )  # fmt: skip
