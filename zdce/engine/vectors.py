"""Vectors of the processor in LLVM's own language, by way of numba (extra ``fast``).

What numba does not turn into good machine code is written by the instruction: a function that is
given a :class:`Code` writes it, and :func:`kernel` makes it callable from numba. Source: ours.
"""

import contextlib

try:
    import numba
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.core.registry import cpu_target
    from numba.extending import intrinsic
except ImportError:  # the extra "fast" is not installed
    numba = None

if numba:
    machine_code = numba.njit(
        nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"}
    )
    _features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    LANES = 16 if "+avx512f" in _features else 8 if "+avx2" in _features else 4  # of a vector
    INT, FLOAT, WHOLE = ir.IntType(64), ir.FloatType(), ir.IntType(32)
    VECTOR, HALF = ir.VectorType(FLOAT, LANES), ir.VectorType(FLOAT, LANES // 2)
    BYTES = 4 * LANES
    STORED = (ir.IntType(8), ir.IntType(16), FLOAT)  # samples of pixels, by kind
    TOPS = (255, 65535, 1)  # the value of each kind that stands for 1

    class Code:
        """Vector instructions by name, on addresses in bytes."""

        def __init__(self, builder) -> None:
            self.builder = builder

        def at(self, address, offset: int = 0, times=None):
            """``address`` + ``offset`` · ``times`` bytes."""
            step = INT(offset) if times is None else self.builder.mul(times, INT(offset))
            return self.builder.add(address, step)

        def load(self, address, offset: int = 0, kind=VECTOR, align: int = 4):
            place = self.builder.inttoptr(self.at(address, offset), kind.as_pointer())
            return self.builder.load(place, align=align)

        def store(self, value, address, offset: int = 0) -> None:
            place = self.builder.inttoptr(self.at(address, offset), value.type.as_pointer())
            self.builder.store(value, place, align=4 if value.type.element == FLOAT else 1)

        def spread(self, address, offset: int = 0):
            """The float at an address, in every lane."""
            one = self.load(address, offset, FLOAT)
            first = self.builder.insert_element(VECTOR(ir.Undefined), one, WHOLE(0))
            return self.pick(first, first, [0] * LANES)

        def pick(self, a, b, lanes: list[int]):
            """Lanes of ``a``, followed by those of ``b``, in another order."""
            return self.builder.shuffle_vector(a, b, ir.VectorType(WHOLE, len(lanes))(lanes))

        def number(self, value: float, kind=VECTOR):
            return kind([float(value)] * kind.count)

        def fma(self, a, b, c):
            """a · b + c; a or b may be a plain number."""
            a, b = (self.number(x, c.type) if isinstance(x, int | float) else x for x in (a, b))
            kind, name = ir.FunctionType(c.type, [c.type] * 3), f"llvm.fma.v{c.type.count}f32"
            function = cgutils.get_or_insert_function(self.builder.module, kind, name)
            return self.builder.call(function, [a, b, c])

        def times(self, a: float, b):
            return self.builder.fmul(self.number(a), b)

        def plus(self, a, b):
            return self.builder.fadd(a, b)

        def minus(self, a, b):
            return self.builder.fsub(a, b)

        def larger(self, a, b):
            return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

        def smaller(self, a, b):
            return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

        @contextlib.contextmanager
        def loop(self, count):
            """n = 0 … count − 1."""
            with cgutils.for_range(self.builder, count) as loop:
                yield loop.index

        def repeat(self, count, carried: list, step) -> list:
            """carried = step(n, carried) for n in 0 … count − 1."""
            places = [cgutils.alloca_once_value(self.builder, value) for value in carried]
            with self.loop(count) as n:
                values = step(n, [self.builder.load(place) for place in places])
                for place, value in zip(places, values, strict=True):
                    self.builder.store(value, place)
            return [self.builder.load(place) for place in places]

        def curve(self, x, r):
            """x + r·(x² − x), once."""
            return self.fma(r, self.fma(x, x, self.builder.fneg(x)), x)

        def read(self, address, kind: int) -> list:
            """R, G and B in [0, 1] of as many pixels as there are lanes."""
            whole, align = ir.VectorType(WHOLE, LANES), 4 if kind == 2 else 1
            stored = self.load(address, 0, ir.VectorType(STORED[kind], 3 * LANES), align)
            rgb = [self.pick(stored, stored, [3 * n + k for n in range(LANES)]) for k in range(3)]
            if kind == 2:
                return rgb
            rgb = [self.builder.sitofp(self.builder.zext(x, whole), VECTOR) for x in rgb]
            return [self.builder.fmul(self.number(1 / TOPS[kind]), x) for x in rgb]

        def write(self, rgb: list, address, kind: int) -> None:
            """What :meth:`read` reads; integers are x·top + 0.5, truncated."""
            if kind < 2:
                stored, whole = (ir.VectorType(each, LANES) for each in (STORED[kind], WHOLE))
                found = (self.fma(TOPS[kind], x, self.number(0.5)) for x in rgb)
                rgb = [self.builder.trunc(self.builder.fptosi(x, whole), stored) for x in found]
            first = self.pick(rgb[0], rgb[1], list(range(2 * LANES)))
            last = self.pick(rgb[2], rgb[2], list(range(LANES)) * 2)
            order = [n // 3 + LANES * (n % 3) for n in range(3 * LANES)]
            self.store(self.pick(first, last, order), address)

    def kernel(count: int, *kinds):
        """An intrinsic: which of ``kinds``, if any, and ``count`` integers; from what writes it."""

        def wrap(write):
            def generate(context, builder, _signature, arguments):
                if not kinds:
                    write(Code(builder), *arguments)
                    return context.get_dummy_value()
                after = builder.append_basic_block("after")
                switch = builder.switch(arguments[0], after)
                for place, kind in enumerate(kinds):
                    switch.add_case(INT(place), block := builder.append_basic_block("kind"))
                    builder.position_at_end(block)
                    write(Code(builder), kind, *arguments[1:])
                    builder.branch(after)
                builder.position_at_end(after)
                return context.get_dummy_value()

            words = [f"a{n}" for n in range(count + bool(kinds))]
            scope = {"signature": types.void(*[types.int64] * len(words)), "generate": generate}
            head = f"def kernel(typingctx, {', '.join(words)}):"
            exec(f"{head}\n    return signature, generate", scope)
            return intrinsic(scope["kernel"])

        return wrap

    @machine_code
    def apply_curve(x, r, times):
        """``x`` after the curve x + r·(x² − x), so many times in a row."""
        for _ in range(times):
            x += r * (x * x - x)
        return x

    @machine_code
    def through(line, table):
        """A line of bytes, each replaced in place by what ``table`` (256,) has at it."""
        for i in range(line.shape[0]):
            line[i] = table[line[i]]
