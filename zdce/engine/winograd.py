"""The seven convolutions as machine code: Winograd's minimal filtering, six rows of a photograph at
a time.

A 3×3 convolution of 6×6 outputs takes 64 multiplications in place of 324 when inputs, weights and
outputs are transformed (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016, F(6×6, 3×3)). All seven layers follow each other down the photograph, each a strip of six rows
behind the one before, so that features never leave the processor's caches. Everything is float32.
The kernels are vectors in LLVM's own language, by way of numba (extra ``fast``): torch offers
neither this algorithm nor layers that overlap. Source of the code: ours.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from zdce.engine.tiling import Tile
from zdce.engine.vectors import numba
from zdce.model import CurveNet

STRIP = 6  # rows that each layer makes at a time, and the side of a tile of outputs
SEEN = STRIP + 2  # rows that it reads for them
PLACES = SEEN**2  # products of a tile
BLOCK = 12  # tiles between the transforms: what they need stays in the nearest caches; measured
# bytes after each place, which a power of two apart would fall on one line of a cache; measured
PAD = 192
ITERATIONS = 8  # of the curves that the last pass applies

# Of three weights, eight numbers: values at 0, ±1, ±2, ±1/2 and infinity. Source: Lavin and Gray,
# section 4.
_POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2)
_WEIGHTS = np.array(
    [[1, 0, 0]]
    + [[-2 / 9 * point**power for power in range(3)] for point in (1, -1)]
    + [[1 / 90 * point**power for power in range(3)] for point in (2, -2)]
    + [[32 / 45 * point**power for power in range(3)] for point in (1 / 2, -1 / 2)]
    + [[0, 0, 1]]
)
# Columns of the table of stages: what is done, which two stages it reads and their channels, how
# many channels it makes, how many strips it lags behind the first, how many rows of it are kept,
# and how many tiles around a result are needed of it: each layer's tiles then read nothing but
# whole tiles of the layer before, and round alike in any part.
KIND, A, B, FROM_A, FROM_B, CHANNELS, LAG, KEPT, AROUND = range(9)
PIXELS, DIRECT, POOL, CONVOLUTION, LAST = range(5)


def transformed(weight: np.ndarray) -> np.ndarray:
    """Weights of a convolution (out, in, 3, 3) as 64 matrices (64, in, out), float32; computed in
    double precision.
    """
    u = np.einsum("ia,ocab,jb->ijco", _WEIGHTS, weight.astype(np.float64), _WEIGHTS)
    return np.ascontiguousarray(u.reshape(PLACES, *u.shape[2:]), dtype=np.float32)


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64 bytes, as vectors like it."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


if numba:
    from llvmlite import ir

    from zdce.engine.vectors import (
        BYTES,
        HALF,
        INT,
        LANES,
        VECTOR,
        Code,
        clear,
        floats,
        kernel,
        kernel_of_kinds,
        machine_code,
        through,
    )

    MOST = 4 if LANES == 8 else 12  # tiles multiplied together: two vectors each, in registers

    def _inputs(c: Code, d: list) -> list:
        """Eight inputs, transformed."""
        first = c.fma(5.25, c.minus(d[4], d[2]), c.minus(d[0], d[6]))
        last = c.fma(5.25, c.minus(d[3], d[5]), c.minus(d[7], d[1]))
        values = [first]
        for even, odd in (
            (c.fma(-4.25, d[4], c.plus(d[2], d[6])), c.fma(-4.25, d[3], c.plus(d[1], d[5]))),
            (
                c.fma(0.25, d[2], c.fma(-1.25, d[4], d[6])),
                c.fma(2, d[5], c.fma(-2.5, d[3], c.times(0.5, d[1]))),
            ),
            (
                c.fma(4, d[2], c.fma(-5, d[4], d[6])),
                c.fma(0.5, d[5], c.fma(-2.5, d[3], c.times(2, d[1]))),
            ),
        ):
            values += [c.plus(even, odd), c.minus(even, odd)]
        return [*values, last]

    def _outputs(c: Code, m: list) -> list:
        """Eight products, as six outputs."""
        pairs = [(c.plus(m[n], m[n + 1]), c.minus(m[n], m[n + 1])) for n in (1, 3, 5)]
        values = [c.plus(c.plus(m[0], pairs[0][0]), c.plus(pairs[1][0], pairs[2][0]))]
        for power in range(1, STRIP):
            one, two, half = (pair[power % 2] for pair in pairs)
            values.append(c.fma(2**power, two, c.fma(2.0**-power, half, one)))
        values[-1] = c.plus(values[-1], m[7])
        return values

    @kernel(6)
    def _down(c, rows, start, pixel, out, apart, count):
        """A vector of each of ``count`` pixels of eight rows, transformed downwards into eight rows
        of ``apart`` bytes.

        rows: where eight addresses stand, ``start`` bytes before the first pixel; pixel: bytes from
        pixel to pixel of what is read; what is written is one vector a pixel.
        """
        lines = [c.builder.add(c.load(rows, 8 * k, INT, 8), start) for k in range(SEEN)]

        def step(n, _):
            at = c.builder.mul(n, pixel)
            for k, value in enumerate(
                _inputs(c, [c.load(c.builder.add(line, at)) for line in lines])
            ):
                c.store(value, c.at(c.at(out, BYTES, n), k, apart))
            return []

        c.repeat(count, [], step)

    @kernel(6)
    def _along(c, source, apart, out, place, tile, count):
        """``count`` tiles of what :func:`_down` made, transformed along the rows: a vector for each
        of 64 places.

        place: bytes from place to place; tile: bytes from tile to tile.
        """

        def step(n, _):
            first, into = c.at(source, STRIP * BYTES, n), c.at(out, 1, c.builder.mul(n, tile))
            for i in range(SEEN):
                row = c.at(first, i, apart)
                for j, value in enumerate(
                    _inputs(c, [c.load(row, j * BYTES) for j in range(SEEN)])
                ):
                    c.store(value, c.at(into, SEEN * i + j, place))
            return []

        c.repeat(count, [], step)

    @kernel_of_kinds(7, 1, 2, 3, 4)
    def _product(c, halves, v, tile, u, m, out, channels, count):
        """``count`` tiles by a matrix that is ``halves`` half vectors wide."""
        kinds = [VECTOR] * (halves // 2) + [HALF] * (halves % 2)

        def group(first, tiles: int) -> None:
            rows = [
                c.at(v, 1, c.builder.mul(tile, c.builder.add(first, INT(t)))) for t in range(tiles)
            ]

            def step(n, sums):
                line, at = c.at(u, halves * BYTES // 2, n), c.builder.mul(n, INT(4))
                weights = [c.load(line, BYTES * p, kind) for p, kind in enumerate(kinds)]
                factors = {VECTOR: [c.spread(c.builder.add(row, at)) for row in rows]}
                factors[HALF] = [c.pick(x, x, list(range(LANES // 2))) for x in factors[VECTOR]]
                each = [(t, p, kind) for t in range(tiles) for p, kind in enumerate(kinds)]
                return [
                    c.fma(factors[kind][t], weights[p], sums[k])
                    for k, (t, p, kind) in enumerate(each)
                ]

            sums = c.repeat(
                channels, [c.number(0, kind) for _ in range(tiles) for kind in kinds], step
            )
            into = c.at(m, 1, c.builder.mul(out, first))
            for k, value in enumerate(sums):
                c.store(value, c.at(into, k // len(kinds), out), BYTES * (k % len(kinds)))

        done = INT(0)
        for tiles in (MOST, 4, 1):  # as many at a time as the registers hold, then what is left

            def several(n, _, done=done, tiles=tiles):
                group(c.builder.add(done, c.builder.mul(n, INT(tiles))), tiles)
                return []

            times = c.builder.sdiv(c.builder.sub(count, done), INT(tiles))
            c.repeat(times, [], several)
            done = c.builder.add(done, c.builder.mul(times, INT(tiles)))

    @kernel_of_kinds(8, (VECTOR, True), (VECTOR, False), (HALF, False))
    def _back(c, how, m, place, tile, bias, into, start, pixel, count):
        """The products of ``count`` tiles as six rows of outputs, with bias, and ReLU or none.

        into: where the rows' addresses stand, ``start`` bytes before the first output.
        """
        kind, relu = how
        shift, zero = c.load(bias, 0, kind), c.number(0, kind)
        lines = [c.builder.add(c.load(into, 8 * k, INT, 8), start) for k in range(STRIP)]

        def step(n, _):
            first = c.at(m, 1, c.builder.mul(n, tile))
            columns = []
            for j in range(SEEN):
                products = [c.at(first, SEEN * i + j, place) for i in range(SEEN)]
                columns.append(_outputs(c, [c.load(each, 0, kind) for each in products]))
            for k, line in enumerate(lines):
                at = c.at(line, STRIP, c.builder.mul(n, pixel))
                for x, value in enumerate(_outputs(c, [column[k] for column in columns])):
                    value = c.plus(value, shift)
                    c.store(c.larger(value, zero) if relu else value, c.at(at, x, pixel))
            return []

        c.repeat(count, [], step)

    @kernel_of_kinds(8, STRIP, 2 * STRIP)
    def _direct(c, pixels, r0, r1, r2, weights, line, bias, out, pixel):
        """The first layer: 3 channels to one vector, so many neighbours at a time, with ReLU."""
        sums = [c.load(bias)] * pixels
        for k, row in enumerate((r0, r1, r2)):

            def step(n, sums, k=k, row=row):
                weight = c.load(c.at(c.at(weights, 9 * k, line), 1, c.builder.mul(n, line)))
                first = c.at(row, 4, n)
                seen = [c.spread(first, 12 * x) for x in range(pixels)]
                return [c.fma(x, weight, total) for x, total in zip(seen, sums, strict=True)]

            sums = c.repeat(INT(9), sums, step)
        for x, total in enumerate(sums):
            c.store(c.larger(total, c.number(0)), c.at(out, x, pixel))

    @kernel(6)
    def _highest(c, r0, r1, r2, pixel, out, count):
        """The largest of 3×3 neighbours: ``count`` vectors, the first of which stands a pixel after
        the rows' start.
        """

        def step(n, _):
            columns = []
            for x in range(3):
                values = [c.load(c.at(c.at(row, BYTES, n), x, pixel)) for row in (r0, r1, r2)]
                columns.append(c.larger(c.larger(values[0], values[1]), values[2]))
            c.store(c.larger(c.larger(columns[0], columns[1]), columns[2]), c.at(out, BYTES, n))
            return []

        c.repeat(count, [], step)

    def _transposed(c: Code, rows: list) -> list:
        """As many vectors as there are lanes, so that lane k of vector n becomes lane n of vector
        k.
        """
        step = 1
        while step < LANES:
            odd = [
                n // step % 2 for n in range(LANES)
            ]  # lanes of every second run come from the other vector
            low = [n + o * (LANES - step) for n, o in enumerate(odd)]
            high = [n + (LANES if o else step) for n, o in enumerate(odd)]
            swapped = list(rows)
            for n in range(LANES):
                if not odd[n]:
                    a, b = rows[n], rows[n + step]
                    swapped[n], swapped[n + step] = c.pick(a, b, low), c.pick(a, b, high)
            rows, step = swapped, 2 * step
        return rows

    def _tanh(c: Code, x):
        """To a few units in the last place. Source: the rational function of Eigen (MPL 2)."""
        x = c.larger(c.smaller(x, c.number(7.9, x.type)), c.number(-7.9, x.type))
        y = c.builder.fmul(x, x)
        p, q = (c.number(term, x.type) for term in (-2.76076847742355e-16, 1.19825839466702e-06))
        for term in (
            2.00018790482477e-13,
            -8.60467152213735e-11,
            5.12229709037114e-08,
            1.48572235717979e-05,
        ):
            p = c.fma(p, y, c.number(term, x.type))
        for term in (6.37261928875436e-04, 4.89352455891786e-03):
            p = c.fma(p, y, c.number(term, x.type))
        for term in (1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03):
            q = c.fma(q, y, c.number(term, x.type))
        return c.builder.fdiv(c.builder.fmul(x, p), q)

    @kernel(3)
    def _tanh_of(c, source, out, count):
        """``count`` half vectors, each through tanh."""

        def step(n, _):
            c.store(
                _tanh(c, c.load(c.at(source, BYTES // 2, n), 0, HALF)), c.at(out, BYTES // 2, n)
            )
            return []

        c.repeat(count, [], step)

    @kernel(3)
    def _bend(c, raw, source, out):
        """As many pixels as there are lanes, R, G, B of 8 bits, bent by 24 curves each before tanh,
        and rounded.
        """
        byte, word = ir.IntType(8), ir.VectorType(ir.IntType(32), LANES)
        starts = [min(n, 24 - LANES) for n in range(0, 24, LANES)]
        curves: list = [None] * 24
        for start in starts:
            rows = [c.load(raw, 4 * (24 * n + start)) for n in range(LANES)]
            for k, value in enumerate(_transposed(c, rows)):
                curves[start + k] = value
        pixels = c.load(source, 0, ir.VectorType(byte, 3 * LANES), 1)
        bent = []
        for colour in range(3):
            x = c.pick(pixels, pixels, [3 * n + colour for n in range(LANES)])
            x = c.builder.uitofp(c.builder.zext(x, word), VECTOR)
            x = c.builder.fmul(x, c.number(np.float32(1 / 255)))
            for k in range(ITERATIONS):
                x = c.fma(_tanh(c, curves[3 * k + colour]), c.fma(x, x, c.builder.fneg(x)), x)
            bent.append(
                c.builder.trunc(
                    c.builder.fptosi(c.fma(255, x, c.number(0.5)), word), ir.VectorType(byte, LANES)
                )
            )
        first = c.pick(bent[0], bent[1], list(range(2 * LANES)))
        last = c.pick(bent[2], bent[2], list(range(LANES)) * 2)
        order = [n // 3 + LANES * (n % 3) for n in range(3 * LANES)]
        c.store(c.pick(first, last, order), out)

    @machine_code
    def _multiply(v, v_place, u, m, m_place, count, channels, outputs):
        """64 products of ``count`` tiles by ``channels`` with matrices ``channels`` by
        ``outputs``.
        """
        half, a_tile, b_tile = LANES // 2, 4 * channels, 4 * outputs
        for place in range(PLACES):
            a, column = v + place * v_place, 0
            while column < outputs:
                b, halves = m + place * m_place + 4 * column, min(4, (outputs - column) // half)
                _product(halves - 1, a, a_tile, u, b, b_tile, channels, count)
                u += 4 * channels * halves * half
                column += halves * half

    @machine_code
    def _tiles_in(rows, channels, offset, block, count, total, temp, v, v_place):
        """Tiles ``block`` … of eight rows (addresses), transformed, into v's channels ``offset``
        …
        """
        pixels = STRIP * count + 2
        line = pixels * BYTES
        for channel in range(0, channels, LANES):
            at = 4 * (STRIP * block * channels + channel)
            _down(rows.ctypes.data, at, 4 * channels, temp, line, pixels)
            _along(temp, line, v + 4 * (offset + channel), v_place, 4 * total, count)

    @machine_code
    def _tiles_out(m, m_place, bias, outputs, kind, start, into, count):
        """The products of ``count`` tiles as six rows of outputs."""
        pixel, rows = 4 * outputs, into.ctypes.data
        for channel in range(0, outputs, LANES):
            at, products, shift = start + 4 * channel, m + 4 * channel, bias + 4 * channel
            how = 0 if kind == CONVOLUTION else 1 if outputs - channel >= LANES else 2
            _back(how, products, m_place, pixel, shift, rows, at, pixel, count)

    @machine_code
    def _convolve(
        rows_a, from_a, rows_b, from_b, start, stop, weights, bias, outputs, kind, into, scratch
    ):
        """Tiles ``start`` … of a strip of a layer from eight rows of one input or two, joined;
        into: addresses.
        """
        total = from_a + from_b
        v_place, m_place = 4 * BLOCK * total + PAD, 4 * BLOCK * outputs + PAD
        v = scratch + SEEN * (STRIP * BLOCK + 2) * BYTES
        m = v + PLACES * v_place
        for block in range(start, stop, BLOCK):
            count = min(BLOCK, stop - block)
            _tiles_in(rows_a, from_a, 0, block, count, total, scratch, v, v_place)
            if from_b:
                _tiles_in(rows_b, from_b, from_a, block, count, total, scratch, v, v_place)
            _multiply(v, v_place, weights, m, m_place, count, total, outputs)
            _tiles_out(m, m_place, bias, outputs, kind, 4 * STRIP * block * outputs, into, count)

    @machine_code
    def _first_layer(rows, weights, bias, channels, start, stop, into):
        """Columns ``start`` … of a strip of the layer that reads three channels; rows: addresses of
        eight.
        """
        for r in range(STRIP):
            for c in range(0, channels, LANES):
                x = start
                while x < stop:
                    a, b, d = rows[r] + 12 * x, rows[r + 1] + 12 * x, rows[r + 2] + 12 * x
                    out = into[r] + 4 * (x * channels + c)
                    two, line = int(stop - x >= 2 * STRIP), 4 * channels
                    _direct(two, a, b, d, weights + 4 * c, line, bias + 4 * c, out, line)
                    x += STRIP * (1 + two)

    @machine_code
    def _bend_row(raw, source, out, table, plain):
        """A row of pixels, (3·width,) uint8, bent by its curves before tanh, which stand at the
        address ``raw``.
        """
        samples = source.shape[0]
        for i in range(0, samples, 3 * LANES):
            if samples - i >= 3 * LANES:
                _bend(raw + 32 * i, source.ctypes.data + i, out.ctypes.data + i)
            # the rest by way of vectors that are long enough; the curves behind the row's end bend
            # nothing
            else:
                before, after = np.zeros(3 * LANES, np.uint8), np.empty(3 * LANES, np.uint8)
                before[: samples - i] = source[i:]
                _bend(raw + 32 * i, before.ctypes.data, after.ctypes.data)
                out[i:] = after[: samples - i]
        if not plain:
            through(out, table)

    @machine_code
    def _laid_out(stages, columns, address, rings):
        """Where things lie in memory from ``address`` on: into ``rings``, each stage's rows, whose
        first and last pixel are nought; returned: a row of noughts, and what is left for one
        convolution.
        """
        zero, widest = (address + 63) // 64 * 64, 0
        for k in range(stages.shape[0]):
            widest = max(widest, stages[k, CHANNELS])
        clear(zero, columns * widest)
        place = zero + 4 * columns * widest
        for k in range(stages.shape[0]):
            place = (place + 63) // 64 * 64
            rings[k] = place
            pixel = 4 * stages[k, CHANNELS]
            for _ in range(stages[k, KEPT]):
                if k == 0:
                    clear(place, columns * pixel // 4)
                else:
                    clear(place, pixel // 4)
                    clear(place + (columns - 1) * pixel, pixel // 4)
                place += columns * pixel
        return zero, (place + 64 * LANES + 63) // 64 * 64

    @machine_code
    def _stream(
        source,
        scale,
        stages,
        addresses,
        work,
        top,
        bottom,
        left,
        right,
        inside,
        out,
        table,
        plain,
        curves,
    ):
        """All layers over rows ``top`` … ``bottom`` and columns ``left`` … ``right`` of a
        photograph.

        source: (H, channels·W), times ``scale`` what the network sees; stages, addresses: see
        :class:`Winograd`; inside: rows and columns of the photograph for which there is to be a
        result. Either out: (H, 3·W) uint8, the photograph bent, through ``table`` unless ``plain``;
        or, where that is empty, curves: (rows, channels·columns) float32 in [−1, 1].
        """
        height, width, count = bottom - top, right - left, stages.shape[0]
        strips, tiles = (height + STRIP - 1) // STRIP, (width + STRIP - 1) // STRIP
        columns = STRIP * tiles + 2  # one before the first and one after the last are nought
        rings = np.empty(count, np.int64)
        zero, scratch = _laid_out(stages, columns, work.ctypes.data, rings)
        rows_a, rows_b, into = (
            np.empty(SEEN, np.int64),
            np.empty(SEEN, np.int64),
            np.empty(STRIP, np.int64),
        )
        final = count - 1
        begin, end = inside[2] - left, inside[3] - left
        first_strip, last_strip = (inside[0] - top) // STRIP, (inside[1] - top + STRIP - 1) // STRIP
        for t in range(strips + stages[final, LAG]):
            for k in range(count):
                s, around = t - stages[k, LAG], stages[k, AROUND]
                if s < max(0, first_strip - around) or s >= min(strips, last_strip + around):
                    continue
                start = max(0, begin // STRIP - around)
                stop = min(tiles, (end + STRIP - 1) // STRIP + around)
                kind, channels, first = stages[k, KIND], stages[k, CHANNELS], STRIP * s
                a, b, from_a, from_b = (
                    stages[k, A],
                    stages[k, B],
                    stages[k, FROM_A],
                    stages[k, FROM_B],
                )
                for r in range(STRIP):
                    into[r] = (
                        rings[k] + ((first + r) % stages[k, KEPT] * columns + 1) * 4 * channels
                    )
                if kind == PIXELS:
                    for r in range(first, min(first + STRIP, height)):
                        line = numba.carray(floats(into[r - first]), channels * width)
                        pixels = source[top + r, channels * left : channels * right]
                        for x in range(channels * width):
                            line[x] = np.float32(pixels[x]) * scale
                    continue
                for r in range(SEEN):
                    y = first + r - 1
                    outside = y < 0 or y >= height
                    rows_a[r] = (
                        zero if outside else rings[a] + y % stages[a, KEPT] * columns * 4 * from_a
                    )
                    if from_b:
                        rows_b[r] = (
                            zero
                            if outside
                            else rings[b] + y % stages[b, KEPT] * columns * 4 * from_b
                        )
                if kind == DIRECT:
                    bounds = STRIP * start, STRIP * stop
                    _first_layer(rows_a, addresses[k, 0], addresses[k, 1], channels, *bounds, into)
                elif kind == POOL:
                    at, vectors = (
                        4 * STRIP * start * channels,
                        STRIP * (stop - start) * channels // LANES,
                    )
                    for r in range(STRIP):
                        a0, a1, a2 = rows_a[r] + at, rows_a[r + 1] + at, rows_a[r + 2] + at
                        _highest(a0, a1, a2, 4 * channels, into[r] + at, vectors)
                else:
                    weights, bias = addresses[k, 0], addresses[k, 1]
                    _convolve(
                        rows_a,
                        from_a,
                        rows_b,
                        from_b,
                        start,
                        stop,
                        weights,
                        bias,
                        channels,
                        kind,
                        into,
                        scratch,
                    )
                for r in range(STRIP if width < STRIP * tiles else 0):
                    clear(into[r] + 4 * channels * width, channels * (STRIP * tiles - width))
                if k < final:
                    continue
                for r in range(first, min(first + STRIP, height)):
                    y = top + r
                    if y < inside[0] or y >= inside[1]:
                        continue
                    if out.shape[0]:
                        pixels, line = (
                            source[y, 3 * inside[2] : 3 * inside[3]],
                            out[y, 3 * inside[2] : 3 * inside[3]],
                        )
                        _bend_row(
                            into[r - first] + 4 * channels * begin, pixels, line, table, plain
                        )
                    else:
                        raw, line = into[r - first] + 4 * channels * begin, curves[y - inside[0]]
                        _tanh_of(raw, line.ctypes.data, channels * (end - begin) // (LANES // 2))


def can_run(net: torch.nn.Module) -> bool:
    """Whether :class:`Winograd` knows this network: ours, seven plain convolutions at one size;
    needs numba.
    """
    ours = numba is not None and isinstance(net, CurveNet) and not net.config.separable
    return ours and net.config.pooling != "stride2" and net.e_conv1.weight.device.type == "cpu"


class Winograd:
    """The convolutions of a :class:`~zdce.model.CurveNet` as machine code; values are those of the
    network up to rounding in float32.
    """

    def __init__(self, net: CurveNet) -> None:
        self.config, self.kept = net.config, []
        pools = net.config.pools if net.config.pooling == "overlapping" else 0
        width = _up(net.config.width, LANES)
        rows: list[list[int]] = []

        def stage(kind: int, channels: int, a: int = 0, b: int | None = None, layer=None) -> int:
            inputs = [rows[a][CHANNELS] if rows else 0, rows[b][CHANNELS] if b is not None else 0]
            rows.append([kind, a, b or 0, *inputs, channels, len(rows), STRIP, 0])
            for read in (
                {a, b} - {None} if kind != PIXELS else ()
            ):  # from the oldest strip read to the newest made
                rows[read][KEPT] = max(rows[read][KEPT], STRIP * (len(rows) - 1 - read + 2))
            parts = [n for n in inputs if n]
            self.kept.append(
                () if layer is None else _packed(layer, parts, channels, kind == DIRECT)
            )
            return len(rows) - 1

        def pooled(x: int, when: int) -> int:
            return stage(POOL, width, x) if pools >= when else x

        x1 = stage(DIRECT, width, stage(PIXELS, 3), layer=net.e_conv1)
        x2 = stage(CONVOLUTION, width, pooled(x1, 3), layer=net.e_conv2)
        x3 = stage(CONVOLUTION, width, pooled(x2, 2), layer=net.e_conv3)
        x4 = stage(CONVOLUTION, width, pooled(x3, 1), layer=net.e_conv4)
        x5 = stage(CONVOLUTION, width, x3, x4, net.e_conv5)
        x6 = stage(CONVOLUTION, width, x2, x5, net.e_conv6)
        stage(LAST, _up(net.config.curve_channels, LANES // 2), x1, x6, net.e_conv7)
        for row in reversed(rows[1:]):
            for read in (row[A], row[B]) if row[FROM_B] else (row[A],):
                rows[read][AROUND] = max(rows[read][AROUND], row[AROUND] + 1)
        self.stages = np.array(rows, np.int64)
        self.addresses = np.array(
            [[x.ctypes.data for x in each] or [0, 0] for each in self.kept], np.int64
        )
        self.room = threading.local()

    @property
    def in_one_pass(self) -> bool:
        """Whether it can go from 8 bits to 8 bits: a curve for each of 8 iterations and 3
        colours.
        """
        c = self.config
        return c.iterations == ITERATIONS and c.curve_channels == 3 * ITERATIONS

    def curves(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] → curves in [−1, 1], (1, 24, H, W) or fewer channels,
        float32, channels last."""
        height, width = image.shape[-2:]
        lines = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy(), np.float32)
        outputs = int(self.stages[-1, CHANNELS])
        curves = np.empty((height, width, outputs), np.float32)
        self._run(lines, np.float32(1), slice(0, height), slice(0, width), curves=curves)
        return torch.from_numpy(curves)[..., : self.config.curve_channels].permute(2, 0, 1)[None]

    def finish(
        self,
        pixels: np.ndarray,
        out: np.ndarray,
        rows: slice,
        columns: slice,
        table: np.ndarray | None = None,
    ) -> None:
        """Rows and columns of ``pixels`` (H, W, 3) uint8, bent, rounded and through ``table``
        (256,) uint8, into ``out``, its like. Rounding is the released code's: x·255 + 0.5,
        truncated.
        """
        self._run(pixels, np.float32(1 / 255), rows, columns, out, table)

    def around(self, tile: Tile, height: int, width: int) -> Tile:
        """A tile with as much around it as :meth:`window` says."""
        return replace(tile, **self.window(tile.rows, tile.columns, height, width))

    def window(self, rows: slice, columns: slice, height: int, width: int) -> dict[str, slice]:
        """What of a photograph of height × width pixels is needed for some rows and columns:
        seen_rows, seen_columns.

        It begins where a tile of the whole photograph does, so that a part is computed just as the
        whole is.
        """
        around, seen = STRIP * int(self.stages[0, AROUND]), {}
        for name, part, side in (("seen_rows", rows, height), ("seen_columns", columns, width)):
            first, last = part.start // STRIP * STRIP - around, _up(part.stop, STRIP) + around
            seen[name] = slice(max(0, first), min(side, last))
        return seen

    def _run(
        self,
        seen: np.ndarray,
        scale: np.float32,
        rows: slice,
        columns: slice,
        out: np.ndarray | None = None,
        table: np.ndarray | None = None,
        curves: np.ndarray | None = None,
    ) -> None:
        height, width = seen.shape[:2]
        window = self.window(rows, columns, height, width)
        (top, bottom), (left, right) = ((part.start, part.stop) for part in window.values())
        work = self._work(right - left)
        out = np.empty((0, 0), np.uint8) if out is None else out.reshape(height, -1)
        curves = np.empty((0, 0), np.float32) if curves is None else curves.reshape(len(curves), -1)
        table, plain = (table, False) if table is not None else (np.empty(0, np.uint8), True)
        bounds = (
            top,
            bottom,
            left,
            right,
            np.array([rows.start, rows.stop, columns.start, columns.stop]),
        )
        _stream(
            seen.reshape(height, -1),
            scale,
            self.stages,
            self.addresses,
            work,
            *bounds,
            out,
            table,
            plain,
            curves,
        )

    def _work(self, width: int) -> np.ndarray:
        """Memory of this thread, kept for its next photograph; enough for ``width`` columns."""
        columns, stages = STRIP * -(-width // STRIP) + 2, self.stages
        widest, total = (
            int(stages[:, CHANNELS].max()),
            int((stages[:, FROM_A] + stages[:, FROM_B]).max()),
        )
        rings = int((stages[:, CHANNELS] * stages[:, KEPT]).sum()) + widest
        scratch = SEEN * (STRIP * BLOCK + 2) * LANES + PLACES * BLOCK * (total + widest)
        size = 4 * (rings * columns + scratch) + 2 * PLACES * PAD + 64 * (len(stages) + LANES + 4)
        if getattr(self.room, "work", np.empty(0)).nbytes < size:
            self.room.work = np.empty(size, np.uint8)
        return self.room.work


def _up(count: int, to: int) -> int:
    return -(-count // to) * to


def _packed(
    layer: torch.nn.Conv2d, parts: list[int], outputs: int, direct: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of a convolution as the kernels read them; parts: channels of its inputs, as
    they are kept.
    """
    weight, bias = (parameter.detach().float().numpy() for parameter in (layer.weight, layer.bias))
    each = weight.shape[1] // len(parts)
    full = np.zeros((outputs, sum(parts), 3, 3), np.float32)
    for number, start in enumerate(np.cumsum([0, *parts[:-1]])):
        full[: len(weight), start : start + each] = weight[:, number * each : (number + 1) * each]
    shift = np.zeros(outputs, np.float32)
    shift[: len(bias)] = bias
    if direct:
        return _aligned(full.transpose(2, 3, 1, 0)), _aligned(shift)
    u = transformed(full)
    groups = [u[:, :, n : n + 2 * LANES].reshape(PLACES, -1) for n in range(0, outputs, 2 * LANES)]
    return _aligned(np.concatenate(groups, axis=1)), _aligned(shift)
