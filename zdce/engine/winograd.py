"""The seven convolutions as machine code, six rows at a time: Winograd's minimal filtering.

A 3×3 convolution of 6×6 outputs takes 64 multiplications in place of 324 when inputs, weights and
outputs are transformed (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016, F(6×6, 3×3)); the first, of three channels, is computed directly. All layers follow each other
down the photograph, each a strip of six rows behind the one before, so that features never leave
the processor's caches; torch offers neither. Everything is float32. Source of the code: ours.
"""

import threading

import numpy as np
import torch
from torch import Tensor

from zdce.engine.vectors import numba
from zdce.model import CurveNet

STRIP = 6  # rows that each layer makes at a time, and the side of a tile of outputs
SEEN = STRIP + 2  # rows that it reads for them
PLACES = SEEN**2  # products of a tile
BLOCK = 12  # tiles between the transforms: what they need stays in the nearest caches; measured
PAD = 192  # bytes after each place: a power of two apart, places would share a line of a cache
ITERATIONS = 8  # of the curves that the last pass applies
# tanh x = x · p(x²) / q(x²), highest powers first. Source: Eigen (MPL 2).
TANH = (
    (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
     1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
    (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
)  # fmt: skip
NOTHING = np.empty((0, 0), np.uint8)
Part = tuple[slice, slice]  # rows and columns

# Of three weights, eight numbers: values at 0, ±1, ±2, ±1/2 and infinity (Lavin and Gray, 4).
_WEIGHTS = np.array(
    [[1, 0, 0]]
    + [[-2 / 9 * point**power for power in range(3)] for point in (1, -1)]
    + [[1 / 90 * point**power for power in range(3)] for point in (2, -2)]
    + [[32 / 45 * point**power for power in range(3)] for point in (1 / 2, -1 / 2)]
    + [[0, 0, 1]]
)
# Columns of the table of stages: what is done, which two stages it reads (−1: none), how many
# channels it makes, how many strips it lags behind the first, how many rows of it are kept, how
# many tiles around a result are needed of it (whole ones, so that any part rounds alike).
KIND, A, B, CHANNELS, LAG, KEPT, AROUND = range(7)
PIXELS, DIRECT, POOL, CONVOLUTION, LAST = range(5)


if numba:
    from zdce.engine.vectors import BYTES, HALF, INT, LANES, VECTOR, kernel, machine_code, through

    MOST = 4 if LANES == 8 else 12  # tiles multiplied together: two vectors each, in registers

    def _inputs(c, d: list) -> list:
        """Eight inputs, transformed."""
        values = [c.fma(5.25, c.minus(d[4], d[2]), c.minus(d[0], d[6]))]
        half, double = c.times(0.5, d[1]), c.times(2, d[1])
        for even, odd in (
            (c.fma(-4.25, d[4], c.plus(d[2], d[6])), c.fma(-4.25, d[3], c.plus(d[1], d[5]))),
            (c.fma(0.25, d[2], c.fma(-1.25, d[4], d[6])), c.fma(2, d[5], c.fma(-2.5, d[3], half))),
            (c.fma(4, d[2], c.fma(-5, d[4], d[6])), c.fma(0.5, d[5], c.fma(-2.5, d[3], double))),
        ):
            values += [c.plus(even, odd), c.minus(even, odd)]
        return [*values, c.fma(5.25, c.minus(d[3], d[5]), c.minus(d[7], d[1]))]

    def _outputs(c, m: list) -> list:
        """Eight products, as six outputs."""
        pairs = [(c.plus(m[n], m[n + 1]), c.minus(m[n], m[n + 1])) for n in (1, 3, 5)]
        values = [c.plus(c.plus(m[0], pairs[0][0]), c.plus(pairs[1][0], pairs[2][0]))]
        for power in range(1, STRIP):
            one, two, half = (pair[power % 2] for pair in pairs)
            values.append(c.fma(2**power, two, c.fma(2.0**-power, half, one)))
        values[-1] = c.plus(values[-1], m[7])
        return values

    def _lines(c, rows, count: int, start) -> list:
        """``start`` bytes behind each of the ``count`` addresses that stand at ``rows``."""
        return [c.builder.add(c.load(rows, 8 * k, INT, 8), start) for k in range(count)]

    @kernel(6)
    def _down(c, rows, start, pixel, out, apart, count):
        """Eight rows of pixels, a vector of channels each, transformed downwards; bytes apart."""
        lines = _lines(c, rows, SEEN, start)
        with c.loop(count) as n:
            at = c.builder.mul(n, pixel)
            values = _inputs(c, [c.load(c.builder.add(line, at)) for line in lines])
            for k, value in enumerate(values):
                c.store(value, c.at(c.at(out, BYTES, n), k, apart))

    @kernel(6)
    def _along(c, source, apart, out, place, tile, count):
        """What :func:`_down` made, transformed along the rows: 64 places of each tile."""
        with c.loop(count) as n:
            first, into = c.at(source, STRIP * BYTES, n), c.at(out, 1, c.builder.mul(n, tile))
            for i in range(SEEN):
                row = c.at(first, i, apart)
                values = _inputs(c, [c.load(row, j * BYTES) for j in range(SEEN)])
                for j, value in enumerate(values):
                    c.store(value, c.at(into, SEEN * i + j, place))

    @kernel(7, 1, 2, 3, 4)
    def _product(c, halves, v, tile, u, m, out, channels, count):
        """``count`` tiles by a matrix that is ``halves`` half vectors wide."""
        kinds = [VECTOR] * (halves // 2) + [HALF] * (halves % 2)

        def group(first, tiles: int) -> None:
            each = [c.builder.add(first, INT(t)) for t in range(tiles)]
            rows = [c.at(v, 1, c.builder.mul(tile, number)) for number in each]

            def step(n, sums):
                line, at = c.at(u, halves * BYTES // 2, n), c.builder.mul(n, INT(4))
                weights = [c.load(line, BYTES * p, kind) for p, kind in enumerate(kinds)]
                factors = {VECTOR: [c.spread(c.builder.add(row, at)) for row in rows]}
                factors[HALF] = [c.pick(x, x, list(range(LANES // 2))) for x in factors[VECTOR]]
                each = [(t, p, kind) for t in range(tiles) for p, kind in enumerate(kinds)]
                both = zip(each, sums, strict=True)
                return [c.fma(factors[kind][t], weights[p], sum_) for (t, p, kind), sum_ in both]

            nought = [c.number(0, kind) for _ in range(tiles) for kind in kinds]
            into = c.at(m, 1, c.builder.mul(out, first))
            for k, value in enumerate(c.repeat(channels, nought, step)):
                c.store(value, c.at(into, k // len(kinds), out), BYTES * (k % len(kinds)))

        done = INT(0)
        for tiles in (MOST, 4, 1):  # as many at a time as the registers hold, then what is left
            times = c.builder.sdiv(c.builder.sub(count, done), INT(tiles))
            with c.loop(times) as n:
                group(c.builder.add(done, c.builder.mul(n, INT(tiles))), tiles)
            done = c.builder.add(done, c.builder.mul(times, INT(tiles)))

    @kernel(7, (VECTOR, True), (VECTOR, False), (HALF, False))
    def _back(c, how, m, place, bias, into, start, pixel, count):
        """The products of ``count`` tiles as six rows of outputs, with bias, and ReLU or none."""
        kind, relu = how
        shift, zero = c.load(bias, 0, kind), c.number(0, kind)
        lines = _lines(c, into, STRIP, start)
        with c.loop(count) as n:
            first = c.at(m, 1, c.builder.mul(n, pixel))
            columns = []
            for j in range(SEEN):
                products = [c.at(first, SEEN * i + j, place) for i in range(SEEN)]
                columns.append(_outputs(c, [c.load(each, 0, kind) for each in products]))
            for k, line in enumerate(lines):
                at = c.at(line, STRIP, c.builder.mul(n, pixel))
                for x, value in enumerate(_outputs(c, [column[k] for column in columns])):
                    value = c.plus(value, shift)
                    c.store(c.larger(value, zero) if relu else value, c.at(at, x, pixel))

    @kernel(6)
    def _direct(c, rows, start, weights, bias, out, pixel):
        """The first layer: 3 channels to one vector, for a strip of neighbours, with ReLU."""
        sums = [c.load(bias)] * STRIP
        for k, row in enumerate(_lines(c, rows, 3, start)):

            def step(n, sums, k=k, row=row):
                weight = c.load(c.at(c.at(weights, 9 * k, pixel), 1, c.builder.mul(n, pixel)))
                first = c.at(row, 4, n)
                seen = [c.spread(first, 12 * x) for x in range(STRIP)]
                return [c.fma(x, weight, total) for x, total in zip(seen, sums, strict=True)]

            sums = c.repeat(INT(9), sums, step)
        for x, total in enumerate(sums):
            c.store(c.larger(total, c.number(0)), c.at(out, x, pixel))

    @kernel(5)
    def _highest(c, rows, start, pixel, out, count):
        """The largest of 3×3 neighbours: ``count`` vectors, from a pixel after the rows' start."""
        lines = _lines(c, rows, 3, start)
        with c.loop(count) as n:
            columns = []
            for x in range(3):
                values = [c.load(c.at(c.at(row, BYTES, n), x, pixel)) for row in lines]
                columns.append(c.larger(c.larger(values[0], values[1]), values[2]))
            c.store(c.larger(c.larger(columns[0], columns[1]), columns[2]), c.at(out, BYTES, n))

    def _transposed(c, rows: list) -> list:
        """Of as many vectors as there are lanes, lane k of vector n becomes lane n of vector k."""
        step = 1
        while step < LANES:  # lanes of every second run of ``step`` come from the other vector
            odd = [n // step % 2 for n in range(LANES)]
            low = [n + o * (LANES - step) for n, o in enumerate(odd)]
            high = [n + (LANES if o else step) for n, o in enumerate(odd)]
            rows = [
                c.pick(rows[n - step], rows[n], high) if o else c.pick(rows[n], rows[n + step], low)
                for n, o in enumerate(odd)
            ]
            step *= 2
        return rows

    def _tanh(c, x):
        """To a few units in the last place."""
        x = c.larger(c.smaller(x, c.number(7.9, x.type)), c.number(-7.9, x.type))
        y = c.builder.fmul(x, x)

        def polynomial(first: float, *terms: float):
            total = c.number(first, x.type)
            for term in terms:
                total = c.fma(total, y, c.number(term, x.type))
            return total

        p, q = (polynomial(*terms) for terms in TANH)
        return c.builder.fdiv(c.builder.fmul(x, p), q)

    @kernel(3)
    def _tanh_of(c, source, out, count):
        """``count`` half vectors, each through tanh."""
        with c.loop(count) as n:
            value = _tanh(c, c.load(c.at(source, BYTES // 2, n), 0, HALF))
            c.store(value, c.at(out, BYTES // 2, n))

    @kernel(3)
    def _enhance(c, raw, source, out):
        """As many pixels of 8 bits as there are lanes, by 24 curves each before tanh, rounded."""
        curves: list = [None] * 24
        for start in (min(n, 24 - LANES) for n in range(0, 24, LANES)):
            rows = [c.load(raw, 4 * (24 * n + start)) for n in range(LANES)]
            curves[start : start + LANES] = _transposed(c, rows)
        rgb = c.read(source, 0)
        for k, values in enumerate(curves):
            rgb[k % 3] = c.curve(rgb[k % 3], _tanh(c, values))
        c.write(rgb, out, 0)

    @machine_code
    def _enhance_row(raw, source, out, table):
        """A row of pixels (3·width,) by its curves before tanh, at ``raw``, then by ``table``."""
        step = 3 * LANES
        whole = source.shape[0] // step * step
        for i in range(0, whole, step):
            _enhance(raw + 32 * i, source.ctypes.data + i, out.ctypes.data + i)
        if whole < source.shape[0]:  # by way of vectors that are long enough
            rest = np.zeros(step, np.uint8)
            rest[: source.shape[0] - whole] = source[whole:]
            _enhance(raw + 32 * whole, rest.ctypes.data, rest.ctypes.data)
            out[whole:] = rest[: source.shape[0] - whole]
        if table.shape[0]:
            through(out, table)

    @machine_code
    def _rows(place, stage, columns, first, height, zero, out):
        """Addresses of rows ``first`` … of a stage kept at ``place``; outside, of noughts."""
        for r in range(out.shape[0]):
            y = first + r
            kept = place + y % stage[KEPT] * columns * 4 * stage[CHANNELS]
            out[r] = kept if 0 <= y < height else zero

    @machine_code
    def _first_layer(rows, weights, bias, channels, start, stop, into):
        """Columns ``start`` … of a strip of the layer that reads three channels."""
        for r in range(STRIP):
            for c in range(0, channels, LANES):
                for x in range(start, stop, STRIP):
                    seen, out = rows.ctypes.data + 8 * r, into[r] + 4 * (x * channels + c)
                    _direct(seen, 12 * x, weights + 4 * c, bias + 4 * c, out, 4 * channels)

    @machine_code
    def _convolve(stages, k, weights, bias, rows, start, stop, into, scratch):
        """Tiles ``start`` … of a strip of layer k from eight rows of one input or two, joined."""
        outputs, half, total = stages[k, CHANNELS], LANES // 2, 0
        for read in stages[k, A : B + 1]:
            total += stages[read, CHANNELS] if read >= 0 else 0
        v_place, m_place = 4 * BLOCK * total + PAD, 4 * BLOCK * outputs + PAD
        v = scratch + SEEN * (STRIP * BLOCK + 2) * BYTES
        m = v + PLACES * v_place
        for block in range(start, stop, BLOCK):
            count = min(BLOCK, stop - block)
            pixels, out, u = STRIP * count + 2, v, weights
            for side in range(2 if stages[k, B] >= 0 else 1):
                channels = stages[stages[k, A + side], CHANNELS]
                for channel in range(0, channels, LANES):
                    at = 4 * (STRIP * block * channels + channel)
                    seen, line = rows[side].ctypes.data, pixels * BYTES
                    _down(seen, at, 4 * channels, scratch, line, pixels)
                    _along(scratch, line, out, v_place, 4 * total, count)
                    out += BYTES
            for place in range(PLACES):
                for column in range(0, outputs, 2 * LANES):
                    halves = min(4, (outputs - column) // half)
                    a, b = v + place * v_place, m + place * m_place + 4 * column
                    _product(halves - 1, a, 4 * total, u, b, 4 * outputs, total, count)
                    u += 4 * total * halves * half
            for channel in range(0, outputs, LANES):
                last = 1 if outputs - channel >= LANES else 2
                how = last if stages[k, KIND] == LAST else 0
                at, shift = 4 * (STRIP * block * outputs + channel), bias + 4 * channel
                products, lines = m + 4 * channel, into.ctypes.data
                _back(how, products, m_place, shift, lines, at, 4 * outputs, count)

    @machine_code
    def _stream(source, scale, stages, layers, work, places, columns, window, out, table, curves):
        """All layers, strip by strip, over a part of a photograph.

        source: (H, 3·W), times ``scale`` what the network sees; work: where each stage has its
        place; window: first and last row and column of what is seen, then of the result. Either
        out: (H, 3·W) uint8; or, where that is empty, curves: (rows, channels·columns) in [−1, 1].
        """
        top, bottom, left, right, first_row, last_row, first_column, last_column = window
        height, width, zero, scratch = bottom - top, right - left, places[-2], places[-1]
        strips, tiles = (height + STRIP - 1) // STRIP, (width + STRIP - 1) // STRIP
        rows, into = np.empty((2, SEEN), np.int64), np.empty(STRIP, np.int64)
        final, base = stages.shape[0] - 1, work.ctypes.data
        for t in range(strips + stages[final, LAG]):
            for k in range(final + 1):
                s, around, channels = t - stages[k, LAG], stages[k, AROUND], stages[k, CHANNELS]
                first = (first_row - top) // STRIP - around
                last = (last_row - top + STRIP - 1) // STRIP + around
                if s < max(0, first) or s >= min(strips, last):
                    continue
                start = max(0, (first_column - left) // STRIP - around)
                stop = min(tiles, (last_column - left + STRIP - 1) // STRIP + around)
                upper = STRIP * s
                _rows(places[k] + 4 * channels, stages[k], columns, upper, 2**62, zero, into)
                for side in range(2):
                    read = stages[k, A + side]
                    if read >= 0:
                        place, about = places[read], stages[read]
                        _rows(place, about, columns, upper - 1, height, zero, rows[side])
                if stages[k, KIND] == PIXELS:
                    for r in range(min(STRIP, height - upper)):
                        line = work[(into[r] - base) // 4 :]
                        pixels = source[top + upper + r, channels * left : channels * right]
                        for x in range(channels * width):
                            line[x] = np.float32(pixels[x]) * scale
                elif stages[k, KIND] == DIRECT:
                    bounds = STRIP * start, STRIP * stop
                    _first_layer(rows[0], layers[k, 0], layers[k, 1], channels, *bounds, into)
                elif stages[k, KIND] == POOL:
                    at, count = 4 * STRIP * start * channels, STRIP * (stop - start) * channels
                    for r in range(STRIP):
                        seen, line = rows[0].ctypes.data + 8 * r, into[r] + at
                        _highest(seen, at, 4 * channels, line, count // LANES)
                else:
                    weights, bias = layers[k, 0], layers[k, 1]
                    _convolve(stages, k, weights, bias, rows, start, stop, into, scratch)
                for r in range(STRIP):  # what is behind the right border is nought
                    end = (into[r] - base) // 4 + channels * width
                    work[end : end + channels * (STRIP * tiles + 1 - width)] = 0
                if k == final:
                    ends = max(first_row, top + upper), min(last_row, top + upper + STRIP)
                    for y in range(*ends):
                        raw = into[y - top - upper] + 4 * channels * (first_column - left)
                        if out.shape[0]:
                            part = slice(3 * first_column, 3 * last_column)
                            _enhance_row(raw, source[y, part], out[y, part], table)
                        else:
                            count = channels * (last_column - first_column)
                            _tanh_of(raw, curves[y - first_row].ctypes.data, count // (LANES // 2))


def can_run(net: torch.nn.Module) -> bool:
    """Whether :class:`Winograd` knows a network: ours, plain convolutions at one size."""
    ours = numba is not None and isinstance(net, CurveNet) and not net.config.separable
    return ours and net.config.pooling != "stride2" and net.e_conv1.weight.device.type == "cpu"


class Winograd:
    """The convolutions of a :class:`~zdce.model.CurveNet`, up to rounding in float32.

    stages: the table of stages; layers: where weights and bias of each stand.
    """

    def __init__(self, net: CurveNet) -> None:
        self.config = net.config
        pools = net.config.pools if net.config.pooling == "overlapping" else 0
        width, rows, self.weights = _up(net.config.width, LANES), [], []

        def stage(kind: int, channels: int, a: int = -1, b: int = -1, layer=None) -> int:
            inputs = [read for read in (a, b) if read >= 0]
            for read in inputs:  # from the oldest strip read to the newest made
                rows[read][KEPT] = max(rows[read][KEPT], STRIP * (len(rows) - read + 2))
            parts = [rows[read][CHANNELS] for read in inputs]
            self.weights.append(layer and _packed(layer, parts, channels, kind == DIRECT))
            rows.append([kind, a, b, channels, len(rows), STRIP, 0])
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
        for row in reversed(rows):
            for read in (row[A], row[B]):
                if read >= 0:
                    rows[read][AROUND] = max(rows[read][AROUND], row[AROUND] + 1)
        self.stages = np.array(rows, np.int64)
        self.layers = np.array([[x.data_ptr() for x in w] if w else [0, 0] for w in self.weights])
        self.room = threading.local()
        about = (net.config.iterations, net.config.curve_channels)
        self.in_one_pass = about == (ITERATIONS, 3 * ITERATIONS)  # from 8 bits to 8 bits

    def curves(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] → curves (1, channels, H, W) in [−1, 1], channels last."""
        height, width = image.shape[-2:]
        lines = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy(), np.float32)
        curves = np.empty((height, width, self.stages[-1, CHANNELS]), np.float32)
        at, out = (slice(0, height), slice(0, width)), curves.reshape(height, -1)
        self._run(lines.reshape(height, -1), 1, at, NOTHING, NOTHING.ravel(), out)
        return torch.from_numpy(curves)[..., : self.config.curve_channels].permute(2, 0, 1)[None]

    def finish(self, pixels: np.ndarray, out: np.ndarray, at: Part, table: np.ndarray) -> None:
        """Part ``at`` of (H, W, 3) uint8, enhanced and through ``table`` if any, into ``out``."""
        lines, out = (each.reshape(len(pixels), -1) for each in (pixels, out))
        self._run(lines, 1 / 255, at, out, table, NOTHING.astype(np.float32))

    def window(self, at: Part, height: int, width: int) -> Part:
        """What is needed for a part, from a tile of the whole on, so that both round alike."""
        around, seen = STRIP * int(self.stages[0, AROUND]), []
        for part, side in zip(at, (height, width), strict=True):
            first, last = part.start // STRIP * STRIP - around, _up(part.stop, STRIP) + around
            seen.append(slice(max(0, first), min(side, last)))
        return tuple(seen)

    def _run(self, lines, scale, at, out, table, curves) -> None:
        window = self.window(at, len(lines), lines.shape[1] // 3)
        bounds = tuple(n for part in (*window, *at) for n in (part.start, part.stop))
        self._prepare(bounds[3] - bounds[2])
        about = (self.stages, self.layers, self.room.work, self.room.places, self.room.columns)
        _stream(lines, np.float32(scale), *about, bounds, out, table, curves)

    def _prepare(self, width: int) -> None:
        """This thread's memory: rows of each stage, one of noughts, room for a convolution."""
        columns = _up(width, STRIP) + 2  # one before the first and one after the last are nought
        if getattr(self.room, "columns", 0) < columns:
            channels = self.stages[:, CHANNELS]
            sizes = [*(columns * channels * self.stages[:, KEPT]), columns * channels.max()]
            places = PLACES * (BLOCK * 3 * channels.max() + PAD // 2)
            sizes.append(SEEN * (STRIP * BLOCK + 2) * LANES + places)
            # The last vectors of a row are read as a whole; places are multiples of 64 bytes.
            starts = np.cumsum([0, *(_up(int(size) + 24 * LANES, 16) for size in sizes)])
            self.room.columns, self.room.work = columns, torch.zeros(int(starts[-1])).numpy()
            self.room.places = self.room.work.ctypes.data + 4 * starts[:-1]


def _up(count: int, to: int) -> int:
    return -(-count // to) * to


def _packed(layer: torch.nn.Conv2d, parts: list[int], outputs: int, direct: bool) -> list[Tensor]:
    """Weights and bias as the kernels read them, aligned by torch; parts: its inputs' channels."""
    weight, bias = (parameter.detach().float().numpy() for parameter in (layer.weight, layer.bias))
    each = weight.shape[1] // len(parts)
    full, shift = np.zeros((outputs, sum(parts), 3, 3), np.float32), np.zeros(outputs, np.float32)
    for number, start in enumerate(np.cumsum([0, *parts[:-1]])):
        full[: len(weight), start : start + each] = weight[:, number * each : (number + 1) * each]
    shift[: len(bias)] = bias
    if direct:
        return [torch.tensor(full.transpose(2, 3, 1, 0).copy()), torch.tensor(shift)]
    u, step = np.einsum("ia,ocab,jb->ijco", _WEIGHTS, full.astype(np.float64), _WEIGHTS), 2 * LANES
    u = u.astype(np.float32)
    groups = [u[..., n : n + step].reshape(PLACES, -1) for n in range(0, outputs, step)]
    return [torch.tensor(np.concatenate(groups, axis=1)), torch.tensor(shift)]
