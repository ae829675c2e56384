"""The seven convolutions as machine code: Winograd's minimal filtering, four rows of a photograph at a time.

A 3×3 convolution of 4×4 outputs takes 36 multiplications in place of 144 when inputs, weights and outputs are
transformed (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(4×4, 3×3)). All seven
layers follow each other down the photograph, each a strip of four rows behind the one before, so that features never
leave the processor's caches. Everything is float32. The kernels are vectors written in LLVM's own language through
numba (extra ``fast``): torch's convolutions know neither the one nor the other. Source of the code: ours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zdce.model import CurveNet

try:
    import numba
    from llvmlite import binding, ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic
except ImportError:  # the extra "fast" is not installed
    numba = None

STRIP = 4  # rows that each layer makes at a time, and columns of a tile; of F(4×4, 3×3)
PLACES = 36  # products of a tile: (4 + 2)²
BLOCK = 16  # tiles between the transforms; their 36 · 16 · channels numbers stay in the nearest caches

# Of a vector of six inputs, of three weights, and back to four outputs. Source: Lavin and Gray, section 4.
_WEIGHTS = np.array(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6]]
    + [[0, 0, 1]]
)


def transformed(weight: np.ndarray) -> np.ndarray:
    """Weights of a convolution (out, in, 3, 3) as 36 matrices (36, in, out), float32."""
    u = np.einsum("ia,ocab,jb->ijco", _WEIGHTS, weight.astype(np.float64), _WEIGHTS)
    return np.ascontiguousarray(u.reshape(PLACES, *u.shape[2:]), dtype=np.float32)


if numba:
    _machine_code = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
    _features = binding.get_host_cpu_features()
    # Floats of a vector, and how many tiles one pass multiplies: as the processor's registers allow.
    LANES = 16 if _features.get("avx512f") else 8 if _features.get("avx2") else 4
    WIDE = binding.get_host_cpu_name() != "generic" and LANES in (4, 16)  # 32 registers, not 16

    _INT, _FLOAT = ir.IntType(64), ir.FloatType()
    _VECTOR = ir.VectorType(_FLOAT, LANES)
    _BYTES = 4 * LANES

    class _Code:
        """Vector instructions by name, on addresses (bytes); a thin layer over LLVM's builder."""

        def __init__(self, builder) -> None:
            self.builder = builder

        def at(self, address, offset: int = 0, times=None):
            """``address`` + ``offset`` · ``times`` bytes."""
            step = _INT(offset)
            return self.builder.add(address, step if times is None else self.builder.mul(times, step))

        def load(self, address, offset: int = 0):
            return self.builder.load(self.builder.inttoptr(self.at(address, offset), _VECTOR.as_pointer()), align=4)

        def store(self, value, address, offset: int = 0) -> None:
            place = self.builder.inttoptr(self.at(address, offset), value.type.as_pointer())
            self.builder.store(value, place, align=4)

        def spread(self, address, offset: int = 0):
            """The float at an address, in every lane."""
            one = self.builder.load(self.builder.inttoptr(self.at(address, offset), _FLOAT.as_pointer()), align=4)
            nothing = _VECTOR(ir.Undefined)
            first = self.builder.insert_element(nothing, one, ir.IntType(32)(0))
            return self.builder.shuffle_vector(first, nothing, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))

        def number(self, value: float):
            return _VECTOR([float(value)] * LANES)

        def fma(self, a, b, c):
            """a · b + c; a or b may be a plain number."""
            a, b = (self.number(x) if isinstance(x, int | float) else x for x in (a, b))
            kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
            name = f"llvm.fma.v{LANES}f32"
            return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

        def plus(self, a, b):
            return self.builder.fadd(a, b)

        def minus(self, a, b):
            return self.builder.fsub(a, b)

        def larger(self, a, b):
            return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

        def repeat(self, count, carried: list, step) -> list:
            """carried = step(n, carried) for n in 0 … count − 1."""
            builder, before = self.builder, self.builder.block
            head, inner, after = (builder.append_basic_block(name) for name in ("head", "inner", "after"))
            builder.branch(head)
            builder.position_at_end(head)
            n = builder.phi(_INT)
            n.add_incoming(_INT(0), before)
            held = []
            for value in carried:
                held.append(builder.phi(value.type))
                held[-1].add_incoming(value, before)
            builder.cbranch(builder.icmp_signed("<", n, count), inner, after)
            builder.position_at_end(inner)
            values = step(n, held)
            n.add_incoming(builder.add(n, _INT(1)), builder.block)
            for phi, value in zip(held, values, strict=True):
                phi.add_incoming(value, builder.block)
            builder.branch(head)
            builder.position_at_end(after)
            return held

    def _kernel(count: int):
        """An intrinsic of ``count`` integers, from a function that writes its code."""

        def wrap(write):
            def generate(_context, builder, _signature, arguments):
                write(_Code(builder), *arguments)
                return _context.get_dummy_value()

            words = ", ".join(f"a{n}" for n in range(count))
            scope = {"signature": types.void(*[types.int64] * count), "generate": generate}
            exec(f"def kernel(typingctx, {words}):\n    return signature, generate", scope)
            return intrinsic(scope["kernel"])

        return wrap

    def _six(c: _Code, d: list) -> list:
        """Six inputs, transformed."""
        a, b = c.fma(-4, d[2], d[4]), c.fma(-4, d[1], d[3])
        p, q = c.minus(d[4], d[2]), c.minus(d[3], d[1])
        first = c.fma(4, d[0], c.fma(-5, d[2], d[4]))
        last = c.fma(4, d[1], c.fma(-5, d[3], d[5]))
        return [first, c.plus(a, b), c.minus(a, b), c.fma(2, q, p), c.fma(-2, q, p), last]

    def _four(c: _Code, m: list) -> list:
        """Six products, as four outputs."""
        s, d, t, e = c.plus(m[1], m[2]), c.minus(m[1], m[2]), c.plus(m[3], m[4]), c.minus(m[3], m[4])
        first, last = c.plus(m[0], c.plus(s, t)), c.plus(m[5], c.fma(8, e, d))
        return [first, c.fma(2, e, d), c.fma(4, t, s), last]

    @_kernel(9)
    def _down(c, r0, r1, r2, r3, r4, r5, out, apart, count):
        """Six rows, ``count`` vectors each, transformed downwards into six others, ``apart`` bytes from each other."""

        def step(n, _):
            values = _six(c, [c.load(c.at(row, _BYTES, n)) for row in (r0, r1, r2, r3, r4, r5)])
            for k, value in enumerate(values):
                c.store(value, c.at(c.at(out, _BYTES, n), 1, c.builder.mul(apart, _INT(k))))
            return []

        c.repeat(count, [], step)

    @_kernel(7)
    def _along(c, source, apart, pixel, out, place, tile, count):
        """``count`` tiles of what :func:`_down` made, transformed along the rows: a vector for each of 36 places.

        pixel: bytes from column to column; place: bytes from place to place; tile: bytes from tile to tile.
        """

        def step(n, _):
            first = c.at(source, STRIP, c.builder.mul(n, pixel))
            into = c.at(out, 1, c.builder.mul(n, tile))
            for i in range(6):
                row = c.at(first, 1, c.builder.mul(apart, _INT(i)))
                values = _six(c, [c.load(c.at(row, j, pixel)) for j in range(6)])
                for j, value in enumerate(values):
                    c.store(value, c.at(into, 6 * i + j, place))
            return []

        c.repeat(count, [], step)

    def _product(tiles: int, vectors: int):
        """A kernel that multiplies ``tiles`` rows by a matrix of ``vectors`` vectors a row."""

        @_kernel(6)
        def multiply(c, v, tile, u, m, out, channels):
            rows = [c.at(v, t, tile) for t in range(tiles)]

            def step(n, sums):
                line = c.at(u, vectors * _BYTES, n)
                weights = [c.load(line, _BYTES * p) for p in range(vectors)]
                values = [c.spread(c.at(row, 4, n)) for row in rows]
                return [c.fma(values[k // vectors], weights[k % vectors], sums[k]) for k in range(len(sums))]

            sums = c.repeat(channels, [c.number(0)] * (tiles * vectors), step)
            for k, value in enumerate(sums):
                c.store(value, c.at(m, k // vectors, out), _BYTES * (k % vectors))

        return multiply

    _one8, _one4, _one2, _one1 = (_product(tiles, 1) for tiles in (8, 4, 2, 1))
    _two8, _two4, _two2, _two1 = (_product(tiles, 2) for tiles in (8, 4, 2, 1))

    def _back(relu: bool):
        """A kernel that turns the products of ``count`` tiles into four rows of outputs, with bias."""

        @_kernel(10)
        def outputs(c, m, place, tile, bias, o0, o1, o2, o3, pixel, count):
            shift, zero = c.load(bias), c.number(0)

            def step(n, _):
                first = c.at(m, 1, c.builder.mul(n, tile))
                columns = [
                    _four(c, [c.load(c.at(first, 6 * i + j, place)) for i in range(6)]) for j in range(6)
                ]
                for k, row in enumerate((o0, o1, o2, o3)):
                    into = c.at(row, STRIP, c.builder.mul(n, pixel))
                    for x, value in enumerate(_four(c, [column[k] for column in columns])):
                        value = c.plus(value, shift)
                        c.store(c.larger(value, zero) if relu else value, c.at(into, x, pixel))
                return []

            c.repeat(count, [], step)

        return outputs

    _back_relu, _back_plain = _back(True), _back(False)

    def _direct(pixels: int):
        """A kernel of the first layer: 3 channels to one vector, ``pixels`` neighbours at a time, with ReLU."""

        @_kernel(8)
        def convolve(c, r0, r1, r2, weights, line, bias, out, pixel):
            sums = [c.load(bias)] * pixels
            for k, row in enumerate((r0, r1, r2)):

                def step(n, sums, k=k, row=row):
                    weight = c.load(c.at(c.at(weights, 9 * k, line), 1, c.builder.mul(n, line)))
                    first = c.at(row, 4, n)
                    return [c.fma(c.spread(first, 12 * x), weight, total) for x, total in enumerate(sums)]

                sums = c.repeat(_INT(9), sums, step)
            for x, total in enumerate(sums):
                c.store(c.larger(total, c.number(0)), c.at(out, x, pixel))

        return convolve

    _direct8, _direct4 = _direct(8), _direct(4)

    @_kernel(6)
    def _highest(c, r0, r1, r2, pixel, out, count):
        """The largest of 3×3 neighbours: ``count`` vectors, the first of which stands a pixel after the rows' start."""

        def step(n, _):
            columns = []
            for x in range(3):
                values = [c.load(c.at(c.at(row, _BYTES, n), x, pixel)) for row in (r0, r1, r2)]
                columns.append(c.larger(c.larger(values[0], values[1]), values[2]))
            c.store(c.larger(c.larger(columns[0], columns[1]), columns[2]), c.at(out, _BYTES, n))
            return []

        c.repeat(count, [], step)

    @_machine_code
    def _multiply(v, u, m, count, channels, outputs):
        """36 products of ``count`` ≤ BLOCK tiles: (36, BLOCK, channels) · (36, channels, outputs)."""
        pair, single = 2 * LANES, LANES
        for place in range(PLACES):
            for column in range(0, outputs, pair):
                wide = outputs - column >= pair
                line = (pair if wide else single) * 4
                # u holds, place by place, its columns in groups of two vectors, each group whole
                weights = u + 4 * (place * channels * outputs + column * channels)
                t = 0
                while t < count:
                    a = v + 4 * (place * BLOCK + t) * channels
                    b = m + 4 * ((place * BLOCK + t) * outputs + column)
                    left = count - t
                    if wide:
                        if left >= 8 and WIDE:
                            _two8(a, 4 * channels, weights, b, 4 * outputs, channels)
                            t += 8
                        elif left >= 4:
                            _two4(a, 4 * channels, weights, b, 4 * outputs, channels)
                            t += 4
                        elif left >= 2:
                            _two2(a, 4 * channels, weights, b, 4 * outputs, channels)
                            t += 2
                        else:
                            _two1(a, 4 * channels, weights, b, 4 * outputs, channels)
                            t += 1
                    elif left >= 8:
                        _one8(a, 4 * channels, weights, b, 4 * outputs, channels)
                        t += 8
                    elif left >= 4:
                        _one4(a, 4 * channels, weights, b, 4 * outputs, channels)
                        t += 4
                    elif left >= 2:
                        _one2(a, 4 * channels, weights, b, 4 * outputs, channels)
                        t += 2
                    else:
                        _one1(a, 4 * channels, weights, b, 4 * outputs, channels)
                        t += 1

    @_machine_code
    def _into(rows, channels, offset, block, count, total, temp, v):
        """Tiles ``block`` … of six rows (addresses), transformed into places ``offset`` … of v's channels."""
        pixel, width = 4 * channels, (STRIP * count + 2) * channels
        start = 4 * STRIP * block * channels
        _down(
            rows[0] + start, rows[1] + start, rows[2] + start, rows[3] + start, rows[4] + start, rows[5] + start,
            temp, 4 * width, width // LANES,
        )  # fmt: skip
        for c in range(0, channels, LANES):
            _along(temp + 4 * c, 4 * width, pixel, v + 4 * (offset + c), 4 * BLOCK * total, 4 * total, count)

    @_machine_code
    def _convolve(rows_a, channels_a, rows_b, channels_b, tiles, weights, bias, outputs, relu, into, scratch):
        """A strip of a layer: six rows of one input or two, joined; into: four rows' addresses (column 0)."""
        total = channels_a + channels_b
        temp = scratch
        v = temp + 4 * 6 * (STRIP * BLOCK + 2) * max(channels_a, channels_b)
        m = v + 4 * PLACES * BLOCK * total
        for block in range(0, tiles, BLOCK):
            count = min(BLOCK, tiles - block)
            _into(rows_a, channels_a, 0, block, count, total, temp, v)
            if channels_b:
                _into(rows_b, channels_b, channels_a, block, count, total, temp, v)
            _multiply(v, weights, m, count, total, outputs)
            start = 4 * STRIP * block * outputs
            for c in range(0, outputs, LANES):
                at = start + 4 * c
                a, b, d, e = into[0] + at, into[1] + at, into[2] + at, into[3] + at
                places, tile, pixel = 4 * BLOCK * outputs, 4 * outputs, 4 * outputs
                if relu:
                    _back_relu(m + 4 * c, places, tile, bias + 4 * c, a, b, d, e, pixel, count)
                else:
                    _back_plain(m + 4 * c, places, tile, bias + 4 * c, a, b, d, e, pixel, count)

    @_machine_code
    def _rows(base, ring, pixel, columns, first, count, height, zero, rows):
        """Addresses of ``count`` rows from ``first`` on, those outside the photograph being zero."""
        for k in range(count):
            r = first + k
            rows[k] = zero if r < 0 or r >= height else base + (r % ring) * columns * pixel

    @_machine_code
    def _clear(address, count):
        data = numba.carray(_pointer(address), count)
        data[:] = 0

    @intrinsic
    def _pointer(typingctx, address):
        def generate(_context, builder, _signature, arguments):
            return builder.inttoptr(arguments[0], _FLOAT.as_pointer())

        return types.CPointer(types.float32)(types.int64), generate

    @_machine_code
    def _stream(source, scale, stages, addresses, work, zero_bytes, seen, target, out, table, plain, iterations):
        """All layers over the part ``seen`` (top, bottom, left, right) of a photograph, results for ``target``.

        source: rows of R, G, B; stages: a row each of kind, inputs a and b, their channels, output and its channels,
        lag, rings…; see :meth:`Winograd._plan`.
        """
        top, left = seen[0], seen[2]
        height, width = seen[1] - seen[0], seen[3] - seen[2]
        strips, tiles = (height + STRIP - 1) // STRIP, (width + STRIP - 1) // STRIP
        columns = STRIP * tiles + 2
        base = (work.ctypes.data + 63) // 64 * 64
        zero = base
        _clear(zero, zero_bytes // 4)
        count = stages.shape[0]
        rings = np.empty(count, np.int64)
        place = base + zero_bytes
        for k in range(count):
            rings[k] = place
            ring, pixel = stages[k, 7], 4 * stages[k, 5]
            if k == 0:
                _clear(place, ring * columns * pixel // 4)
            else:
                for r in range(ring):
                    _clear(place + r * columns * pixel, pixel // 4)
                    _clear(place + ((r + 1) * columns - 1) * pixel, pixel // 4)
            place += (ring * columns * pixel + 63) // 64 * 64
        scratch = place
        rows_a, rows_b, into = np.empty(6, np.int64), np.empty(6, np.int64), np.empty(4, np.int64)
        last = stages[count - 1, 6]
        channels = stages[count - 1, 5]
        curves = np.empty((iterations, 3 * width), np.float32)
        flat = curves.reshape(iterations * 3 * width)
        for t in range(strips + last):
            for k in range(count):
                s = t - stages[k, 6]
                if s < 0 or s >= strips:
                    continue
                kind, a, b, ca, cb, co = stages[k, 0], stages[k, 1], stages[k, 2], stages[k, 3], stages[k, 4], stages[k, 5]
                first = STRIP * s
                _rows(rings[k], stages[k, 7], 4 * co, columns, first, 4, first + 4, zero, into)
                if kind == 0:
                    for r in range(first, min(first + STRIP, height)):
                        line = numba.carray(_pointer(into[r - first] + 12), 3 * width)
                        pixels = source[top + r]
                        for x in range(3 * width):
                            line[x] = np.float32(pixels[3 * left + x]) * scale
                    continue
                for r in range(4):
                    into[r] += 4 * co
                _rows(rings[a], stages[a, 7], 4 * ca, columns, first - 1, 6, height, zero, rows_a)
                if kind == 1:
                    for r in range(4):
                        for c in range(0, co, LANES):
                            x = 0
                            while x < STRIP * tiles:
                                r0, r1, r2 = rows_a[r] + 12 * x, rows_a[r + 1] + 12 * x, rows_a[r + 2] + 12 * x
                                place = into[r] + 4 * (x * co + c)
                                weights, bias = addresses[k, 0] + 4 * c, addresses[k, 1] + 4 * c
                                if STRIP * tiles - x >= 8:
                                    _direct8(r0, r1, r2, weights, 4 * co, bias, place, 4 * co)
                                    x += 8
                                else:
                                    _direct4(r0, r1, r2, weights, 4 * co, bias, place, 4 * co)
                                    x += 4
                elif kind == 2:
                    for r in range(4):
                        _highest(rows_a[r], rows_a[r + 1], rows_a[r + 2], 4 * co, into[r], STRIP * tiles * co // LANES)
                else:
                    if cb:
                        _rows(rings[b], stages[b, 7], 4 * cb, columns, first - 1, 6, height, zero, rows_b)
                    _convolve(
                        rows_a, ca, rows_b, cb, tiles, addresses[k, 0], addresses[k, 1], co, kind == 3, into, scratch
                    )
                if width < STRIP * tiles:
                    for r in range(4):
                        _clear(into[r] + 4 * co * width, co * (STRIP * tiles - width))
                if k == count - 1:
                    for r in range(first, min(first + STRIP, height)):
                        y = top + r
                        if target[0] <= y < target[1]:
                            begin, end = target[2] - left, target[3] - left
                            raw = numba.carray(_pointer(into[r - first]), (columns - 2, channels))
                            for x in range(begin, end):
                                for i in range(iterations):
                                    for c in range(3):
                                        curves[i, 3 * (x - begin) + c] = raw[x, 3 * i + c]
                            _tanh(flat)
                            line = out[y, 3 * target[2] : 3 * target[3]]
                            pixels = source[y, 3 * target[2] : 3 * target[3]]
                            _curve(pixels, line, curves, table, plain)

    @_machine_code
    def _curve(source, target, curves, table, plain):
        for i in range(source.shape[0]):
            x = np.float32(source[i]) * np.float32(1 / 255)
            for k in range(8):
                x += curves[k, i] * (x * x - x)
            target[i] = np.uint8(np.int32(x * np.float32(255) + np.float32(0.5)))
        if not plain:
            for i in range(source.shape[0]):
                target[i] = table[target[i]]

    from zdce.fast import _tanh

KINDS = {"pixels": 0, "direct": 1, "pool": 2, "relu": 3, "plain": 4}


class Winograd:
    def __init__(self, net: CurveNet) -> None:
        c = net.config
        width = -(-c.width // LANES) * LANES
        outputs = -(-c.curve_channels // LANES) * LANES
        rows, kept = [], []

        def stage(kind, a=0, b=0, ca=0, cb=0, co=0):
            rows.append([KINDS[kind], a, b, ca, cb, co, 0, 0])
            kept.append((None, None))
            return len(rows) - 1

        def conv(number, a, b=None, kind="relu"):
            layer = getattr(net, f"e_conv{number}")
            out = outputs if number == 7 else width
            k = stage("direct" if number == 1 else kind, a, b or 0, 3 if number == 1 else width, width if b else 0, out)
            weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
            parts = 1 + (b is not None)
            full = np.zeros((out, 3 if number == 1 else parts * width, 3, 3), np.float32)
            for p in range(parts):
                n = weight.shape[1] // parts
                full[: len(weight), p * width : p * width + n] = weight[:, p * n : (p + 1) * n]
            shift = np.zeros(out, np.float32)
            shift[: len(bias)] = bias
            if number == 1:
                packed = np.ascontiguousarray(full.transpose(2, 3, 1, 0))
            else:
                u = transformed(full)
                groups = [u[:, :, n : n + 2 * LANES].reshape(PLACES, -1) for n in range(0, out, 2 * LANES)]
                packed = np.concatenate(groups, axis=1)
            kept[k] = (aligned(packed), aligned(shift))
            return k

        pools = c.pools if c.pooling == "overlapping" else 0

        def pool(a, when):
            return stage("pool", a, ca=width, co=width) if pools >= when else a

        image = stage("pixels", co=3)
        x1 = conv(1, image)
        x2 = conv(2, pool(x1, 3))
        x3 = conv(3, pool(x2, 2))
        x4 = conv(4, pool(x3, 1))
        x5 = conv(5, x3, x4)
        x6 = conv(6, x2, x5)
        conv(7, x1, x6, "plain")
        for k, row in enumerate(rows):
            row[6] = k
        for k, row in enumerate(rows):  # from the oldest strip read to the newest made
            readers = [n for n, other in enumerate(rows) if n > k and (other[1] == k or (other[4] and other[2] == k))]
            row[7] = STRIP * (max(readers, default=k) - k + 2 if readers else 1)
        self.stages, self.kept = np.array(rows, np.int64), kept
        self.addresses = np.array([[x.ctypes.data if x is not None else 0 for x in each] for each in kept], np.int64)
        self.iterations = c.iterations

    def bytes(self, width):
        columns = STRIP * -(-width // STRIP) + 2
        zero = 4 * columns * int(self.stages[:, 5].max())
        rings = sum(-(-int(r[7] * columns * r[5] * 4) // 64) * 64 for r in self.stages)
        total = int((self.stages[:, 3] + self.stages[:, 4]).max())
        most = int(self.stages[:, 5].max())
        scratch = 4 * (6 * (STRIP * BLOCK + 2) * total + PLACES * BLOCK * (total + most))
        return -(-zero // 64) * 64, 64 + -(-zero // 64) * 64 + rings + scratch

    def run(self, pixels, out, seen, target, table=None):
        H, W, _ = pixels.shape
        zero, size = self.bytes(seen[3] - seen[2])
        work = np.empty(size, np.uint8)
        scale = np.float32(1 / 255)
        tb, plain = (table, False) if table is not None else (np.empty(0, np.uint8), True)
        _stream(pixels.reshape(H, 3 * W), scale, self.stages, self.addresses, work, zero, np.array(seen), np.array(target), out.reshape(H, 3 * W), tb, plain, self.iterations)


def aligned(array):
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out
