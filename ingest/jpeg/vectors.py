"""Vector code for the two steps that LLVM does not vectorise well from loops: the inverse DCT and unstuffing.

Numba has no vectors, but lets a function give LLVM's instructions for what it does. Two blocks are transformed at once,
in sixteen lanes of 16 bits: the arithmetic of libjpeg-turbo's vector code (jidctint-avx2.asm), and so its pixels.

There are two forms of the products and of the narrowing: LLVM's own instructions, which every processor has, and two
instructions of AVX2, which LLVM does not find by itself. Those would abort the program on a processor without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ingest.jpeg import reference

Value = Any  # of llvmlite, which has no types

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))

HAS_AVX2 = "+avx2" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
"""Whether numba compiles for a processor with AVX2."""

_LANES = 16


def _splat(lane: ir.Type, lanes: int, value: int) -> Value:
    return ir.Constant(ir.VectorType(lane, lanes), [value] * lanes)


def _shuffle(builder: Value, a: Value, b: Value, order: Sequence[int]) -> Value:
    """The lanes ``order`` of ``a``, and behind them of ``b``."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), list(order)))


def _pointer(context: Any, builder: Value, kind: Any, array: Value, index: Value, to: ir.Type) -> Value:
    """To the item ``index`` of an array, as to a value of type ``to``."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _clamp(builder: Value, value: Value, low: Value, high: Value) -> Value:
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    return builder.select(builder.icmp_signed(">", value, high), high, value)


def _call(builder: Value, name: str, result: ir.Type, arguments: list[Value]) -> Value:
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [value.type for value in arguments]), name)
    return builder.call(function, arguments)


class _Portable:
    """Sums of products and narrowing by LLVM's own instructions."""

    @staticmethod
    def products(builder: Value, a: Value, b: Value, by_a: int, by_b: int) -> list[Value]:
        """``a * by_a + b * by_b`` in 32 bits, in two halves."""
        halves = []
        for half in (range(8), range(8, 16)):
            terms = []
            for value, factor in ((a, by_a), (b, by_b)):
                if value is not None and factor:
                    wide = builder.sext(_shuffle(builder, value, value, half), ir.VectorType(I32, 8))
                    terms.append(builder.mul(wide, _splat(I32, 8, factor)))
            halves.append(terms[0] if len(terms) == 1 else builder.add(*terms))
        return halves

    @staticmethod
    def narrow(builder: Value, halves: list[Value]) -> Value:
        """Two halves of 32 bits to lanes of 16, saturated."""
        both = _shuffle(builder, halves[0], halves[1], range(16))
        both = _clamp(builder, both, _splat(I32, 16, -32768), _splat(I32, 16, 32767))
        return builder.trunc(both, ir.VectorType(I16, 16))


# The two lanes of 128 bits, of which AVX2 handles each by itself.
_LOW = [lane + i for lane in (0, 8) for j in range(4) for i in (j, 16 + j)]
_HIGH = [lane + i for lane in (0, 8) for j in range(4, 8) for i in (j, 16 + j)]


class _Avx2:
    """The same by vpmaddwd and vpackssdw. A half is the four lower items of both lanes of 128 bits, or the upper."""

    @staticmethod
    def products(builder: Value, a: Value, b: Value, by_a: int, by_b: int) -> list[Value]:
        nothing = _splat(I16, 16, 0)
        factors = ir.Constant(ir.VectorType(I16, 16), [by_a, by_b] * 8)
        a, b = (nothing if value is None else value for value in (a, b))
        pairs = (_shuffle(builder, a, b, order) for order in (_LOW, _HIGH))
        return [_call(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [pair, factors]) for pair in pairs]

    @staticmethod
    def narrow(builder: Value, halves: list[Value]) -> Value:
        return _call(builder, "llvm.x86.avx2.packssdw", ir.VectorType(I16, 16), halves)


# Of libjpeg's jidctint.c: numbers of 13 bits behind the point. Pass 1 keeps two more bits than pass 2.
_CONST_BITS, _PASS1_BITS = 13, 2


def _one_dimension(builder: Value, form: Any, x: list[Value], shift: int) -> list[Value]:
    """The inverse DCT of eight vectors, of which those that are None are zero, divided by 2**shift.

    Loeffler, Ligtenberg and Moschytz (ICASSP 1989), figure 1, with 12 multiplications; factors joined as by
    jidctint-avx2.asm, so that each sum of two products is one instruction.
    """

    def plus(a: Value, b: Value) -> Value:
        return b if a is None else a if b is None else builder.add(a, b)

    def products(a: Value, b: Value, by_a: int, by_b: int) -> list[Value]:
        return form.products(builder, a, b, by_a, by_b)

    def each(operation: Callable[[Value, Value], Value], a: list[Value], b: list[Value]) -> list[Value]:
        return [operation(*pair) for pair in zip(a, b, strict=True)]

    bias = [_splat(I32, 8, 1 << (shift - 1))] * 2
    one = 1 << _CONST_BITS
    sum_04 = products(plus(x[0], x[4]), None, one, 0)
    difference_04 = products(x[0] if x[4] is None else builder.sub(x[0], x[4]), None, one, 0)
    sum_04, difference_04 = each(builder.add, sum_04, bias), each(builder.add, difference_04, bias)
    t2, t3 = products(x[2], x[6], 4433, -10704), products(x[2], x[6], 10703, 4433)
    even = [each(builder.add, sum_04, t3), each(builder.add, difference_04, t2),
            each(builder.sub, difference_04, t2), each(builder.sub, sum_04, t3)]  # fmt: skip
    z3, z4 = plus(x[7], x[3]), plus(x[5], x[1])
    y3, y4 = products(z3, z4, -6436, 9633), products(z3, z4, 9633, 6437)
    odd = [each(builder.add, products(x[7], x[1], -7373, 4926), y4),
           each(builder.add, products(x[5], x[3], -20995, 4177), y3),
           each(builder.add, products(x[5], x[3], -4176, -20995), y4),
           each(builder.add, products(x[7], x[1], -4927, -7373), y3)]  # fmt: skip
    sums = [each(builder.add, *pair) for pair in zip(even, odd, strict=True)]
    differences = [each(builder.sub, *pair) for pair in zip(even, odd, strict=True)]
    return [
        form.narrow(builder, [builder.ashr(half, _splat(I32, 8, shift)) for half in halves])
        for halves in (*sums, *reversed(differences))
    ]


def _transpose(builder: Value, rows: list[Value]) -> list[Value]:
    """Eight vectors, each a row of two blocks, to their columns.

    Interleaving each row with the fourth behind it moves the highest bit of (row, column) behind the lowest; three
    times exchanges the two.
    """
    for _ in range(3):
        rows = [_shuffle(builder, rows[i], rows[i + 4], order) for i in range(4) for order in (_LOW, _HIGH)]
    return rows


def _build_inverse_dct(form: Any, rows: int) -> Any:
    @intrinsic
    def inverse_dct(  # type: ignore[no-untyped-def]
        typing_context, coefficients, first, second, quantisation, table, out, first_to, second_to, stride
    ):
        u = types.uint64
        signature = u(coefficients, u, u, quantisation, u, out, u, u, u)

        def generate(context: Any, builder: Value, signature: Any, arguments: Any) -> Value:
            _, first, second, _, table, out, first_to, second_to, stride = arguments
            row = ir.VectorType(I16, 8)

            def load(array: int, index: Value, i: int) -> Value:
                index = builder.add(index, ir.Constant(I64, 8 * i))
                pointer = _pointer(context, builder, signature.args[array], arguments[array], index, row)
                return builder.load(pointer, align=2)

            x: list[Value] = [None] * 8
            for i in range(rows):
                blocks = _shuffle(builder, load(0, first, i), load(0, second, i), range(16))
                factors = load(3, table, i)
                x[i] = builder.mul(blocks, _shuffle(builder, factors, factors, [*range(8), *range(8)]))
            # Of blocks whose first row alone is not zero, libjpeg-turbo's pass 1 is a shift, which does not saturate.
            overflow = builder.icmp_unsigned(">", builder.add(x[0], _splat(I16, 16, 8192)), _splat(I16, 16, 16383))
            x = _transpose(builder, _one_dimension(builder, form, x, _CONST_BITS - _PASS1_BITS))
            x[rows:] = [None] * (8 - rows)
            x = _transpose(builder, _one_dimension(builder, form, x, _CONST_BITS + _PASS1_BITS + 3))
            for i in range(8):
                pixels = _clamp(builder, x[i], _splat(I16, 16, -128), _splat(I16, 16, 127))
                pixels = builder.xor(builder.trunc(pixels, ir.VectorType(I8, 16)), _splat(I8, 16, -128))
                halves = builder.bitcast(pixels, ir.VectorType(I64, 2))
                for half, to in enumerate((first_to, second_to)):
                    to = builder.add(to, builder.mul(stride, ir.Constant(I64, i)))
                    pointer = _pointer(context, builder, signature.args[5], out, to, I64)
                    builder.store(builder.extract_element(halves, ir.Constant(I32, half)), pointer, align=1)
            return builder.zext(builder.bitcast(overflow, I16), I64)

        return signature, generate

    return inverse_dct


# Of two blocks at once; of two that have coefficients in the first four rows and columns alone.
PORTABLE = _build_inverse_dct(_Portable, 8), _build_inverse_dct(_Portable, 4)
AVX2 = _build_inverse_dct(_Avx2, 8), _build_inverse_dct(_Avx2, 4)
inverse_dct_pair, inverse_dct_pair_of_few = AVX2 if HAS_AVX2 else PORTABLE


@intrinsic
def rgb_16(typing_context, luma, y, blue, b, red, r, out, to):  # type: ignore[no-untyped-def]
    """RGB of 16 pixels of YCbCr: what color.to_rgb() says of one. Factors beyond 16 bits are split, 1.402 to 1 + 0.402,
    so that products are of 16 bits; half of what is added before is added behind, where it comes to the same."""
    u = types.uint64
    signature = types.void(luma, u, blue, u, red, u, out, u)

    def generate(context: Any, builder: Value, signature: Any, arguments: Any) -> Value:
        narrow, wide = ir.VectorType(I16, 16), ir.VectorType(I32, 16)

        def load(i: int) -> Value:
            pointer = _pointer(
                context, builder, signature.args[i], arguments[i], arguments[i + 1], ir.VectorType(I8, 16)
            )
            return builder.zext(builder.load(pointer, align=1), narrow)

        def product(value: Value, factor: int) -> Value:
            return builder.mul(builder.sext(value, wide), _splat(I32, 16, factor))

        def upper(value: Value) -> Value:
            return builder.trunc(builder.ashr(value, _splat(I32, 16, 16)), narrow)

        def half(value: Value) -> Value:
            return builder.ashr(builder.add(value, _splat(I16, 16, 1)), _splat(I16, 16, 1))

        y, cb, cr = load(0), *(builder.sub(load(i), _splat(I16, 16, 128)) for i in (2, 4))
        cb2, cr2 = builder.add(cb, cb), builder.add(cr, cr)
        green = builder.add(builder.add(product(cb, -22554), product(cr, 65536 - 46802)), _splat(I32, 16, 32768))
        colors = [
            builder.add(builder.add(y, cr), half(upper(product(cr2, 91881 - 65536)))),
            builder.add(builder.sub(y, cr), upper(green)),
            builder.add(builder.add(y, cb2), half(upper(product(cb2, 116130 - 2 * 65536)))),
        ]
        limits = _splat(I16, 16, 0), _splat(I16, 16, 255)
        colors = [builder.trunc(_clamp(builder, color, *limits), ir.VectorType(I8, 16)) for color in colors]
        pair = _shuffle(builder, colors[0], colors[1], range(32))
        pixels = _shuffle(
            builder, pair, _shuffle(builder, colors[2], colors[2], range(32)),
            [i + 16 * color for i in range(16) for color in range(3)],
        )  # fmt: skip
        builder.store(
            pixels, _pointer(context, builder, signature.args[6], arguments[6], arguments[7], pixels.type), align=1
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_32(typing_context, data, at, out, to):  # type: ignore[no-untyped-def]
    """Copy 32 bytes, and say which of them are FF: uint64, a bit for each, the first one's the lowest."""
    u = types.uint64

    def generate(context: Any, builder: Value, signature: Any, arguments: Any) -> Value:
        data, at, out, to = arguments
        block = ir.VectorType(I8, 32)
        value = builder.load(_pointer(context, builder, signature.args[0], data, at, block), align=1)
        builder.store(value, _pointer(context, builder, signature.args[2], out, to, block), align=1)
        is_ff = builder.icmp_unsigned("==", value, _splat(I8, 32, -1))
        return builder.zext(builder.bitcast(is_ff, I32), I64)

    return u(data, u, out, u), generate


@intrinsic
def lowest_bit(typing_context, bits):  # type: ignore[no-untyped-def]
    """The number of zeros below the lowest bit that is set in an uint64; there must be one."""

    def generate(context: Any, builder: Value, signature: Any, arguments: Any) -> Value:
        return builder.cttz(arguments[0], ir.Constant(I1, 1))

    return types.uint64(types.uint64), generate


if config.DISABLE_JIT:
    inverse_dct_pair = inverse_dct_pair_of_few = reference.inverse_dct_pair
    rgb_16, copy_32, lowest_bit = reference.rgb_16, reference.copy_32, reference.lowest_bit
