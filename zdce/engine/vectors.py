"""Vectors of the processor, in LLVM's own language by way of numba (extra ``fast``).

What loops in numba do not turn into good machine code is written here by the instruction: a
function that is given a :class:`Code` writes its code, and :func:`kernel` makes it callable from
numba, on addresses. Source: ours.
"""

from __future__ import annotations

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
    _features = (
        cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    )  # of the processor, as numba sees it
    LANES = (
        16 if "+avx512f" in _features else 8 if "+avx2" in _features else 4
    )  # floats of a vector

    INT, FLOAT = ir.IntType(64), ir.FloatType()
    VECTOR, HALF = ir.VectorType(FLOAT, LANES), ir.VectorType(FLOAT, LANES // 2)
    BYTES = 4 * LANES

    class Code:
        """Vector instructions by name, on addresses (bytes); a thin layer over LLVM's builder."""

        def __init__(self, builder) -> None:
            self.builder = builder

        def at(self, address, offset: int = 0, times=None):
            """``address`` + ``offset`` · ``times`` bytes."""
            step = INT(offset)
            return self.builder.add(
                address, step if times is None else self.builder.mul(times, step)
            )

        def load(self, address, offset: int = 0, kind=VECTOR, align: int = 4):
            return self.builder.load(
                self.builder.inttoptr(self.at(address, offset), kind.as_pointer()), align=align
            )

        def store(self, value, address, offset: int = 0) -> None:
            place = self.builder.inttoptr(self.at(address, offset), value.type.as_pointer())
            self.builder.store(value, place, align=4 if value.type.element == FLOAT else 1)

        def spread(self, address, offset: int = 0):
            """The float at an address, in every lane."""
            one = self.load(address, offset, FLOAT)
            first = self.builder.insert_element(VECTOR(ir.Undefined), one, ir.IntType(32)(0))
            return self.pick(first, first, [0] * LANES)

        def pick(self, a, b, lanes: list[int]):
            """Lanes of ``a``, followed by those of ``b``, in another order."""
            return self.builder.shuffle_vector(
                a, b, ir.VectorType(ir.IntType(32), len(lanes))(lanes)
            )

        def number(self, value: float, kind=VECTOR):
            return kind([float(value)] * kind.count)

        def fma(self, a, b, c):
            """a · b + c; a or b may be a plain number."""
            a, b = (self.number(x, c.type) if isinstance(x, int | float) else x for x in (a, b))
            kind, name = ir.FunctionType(c.type, [c.type] * 3), f"llvm.fma.v{c.type.count}f32"
            return self.builder.call(
                cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c]
            )

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

        def repeat(self, count, carried: list, step) -> list:
            """carried = step(n, carried) for n in 0 … count − 1."""
            builder, before = self.builder, self.builder.block
            head, inner, after = (
                builder.append_basic_block(name) for name in ("head", "inner", "after")
            )
            builder.branch(head)
            builder.position_at_end(head)
            n = builder.phi(INT)
            n.add_incoming(INT(0), before)
            held = []
            for value in carried:
                held.append(builder.phi(value.type))
                held[-1].add_incoming(value, before)
            builder.cbranch(builder.icmp_signed("<", n, count), inner, after)
            builder.position_at_end(inner)
            values = step(n, held)
            n.add_incoming(builder.add(n, INT(1)), builder.block)
            for phi, value in zip(held, values, strict=True):
                phi.add_incoming(value, builder.block)
            builder.branch(head)
            builder.position_at_end(after)
            return held

    def kernel(count: int):
        """An intrinsic of ``count`` integers, from a function that writes its code."""

        def wrap(write):
            def generate(_context, builder, _signature, arguments):
                write(Code(builder), *arguments)
                return _context.get_dummy_value()

            words = ", ".join(f"a{n}" for n in range(count))
            scope = {"signature": types.void(*[types.int64] * count), "generate": generate}
            exec(f"def kernel(typingctx, {words}):\n    return signature, generate", scope)
            return intrinsic(scope["kernel"])

        return wrap

    def kernel_of_kinds(count: int, *kinds):
        """As :func:`kernel`, of a function that is also given one of ``kinds``; the intrinsic's
        first integer says which.
        """

        def wrap(write):
            @kernel(count + 1)
            def chosen(c, number, *arguments):
                after = c.builder.append_basic_block("after")
                switch = c.builder.switch(number, after)
                for place, kind in enumerate(kinds):
                    block = c.builder.append_basic_block("kind")
                    switch.add_case(INT(place), block)
                    c.builder.position_at_end(block)
                    write(c, kind, *arguments)
                    c.builder.branch(after)
                c.builder.position_at_end(after)

            return chosen

        return wrap

    def _pointer(kind, number):
        """An intrinsic that takes an address as a pointer to numbers of one kind."""

        @intrinsic
        def pointer(typingctx, address):
            def generate(_context, builder, _signature, arguments):
                return builder.inttoptr(arguments[0], kind.as_pointer())

            return types.CPointer(number)(types.int64), generate

        return pointer

    floats = _pointer(FLOAT, types.float32)
    octets = _pointer(ir.IntType(8), types.uint8)
    words = _pointer(ir.IntType(16), types.uint16)

    @machine_code
    def clear(address, count):
        numba.carray(floats(address), count)[:] = 0

    @machine_code
    def through(line, table):
        """A line of bytes, each replaced in place by what ``table`` (256,) has at it."""
        for i in range(line.shape[0]):
            line[i] = table[line[i]]
