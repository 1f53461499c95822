"""Explicit 16-lane float32 vectors inside numba functions.

The automatic vectoriser gives up on mixed bf16 loads and reductions, so the kernels say what they mean:
``load(kind, address, i)`` reads elements ``i .. i+15`` of a bf16 (``kind`` a uint16) or float32
(``kind`` a float32) array that begins at an address. All arithmetic is float32.
"""

# Numba's typing machinery is untyped, and its intrinsics are written in LLVM builder calls.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic, models, register_model

LANES = 16
BF16 = np.uint16(0)
FP32 = np.float32(0)

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_I16 = ir.IntType(16)
_VF = ir.VectorType(_F32, LANES)
_VI = ir.VectorType(_I32, LANES)
_VH = ir.VectorType(_I16, LANES)


class Vector(types.Type):  # type: ignore[misc]
    """Numba type of a 16-lane float32 vector."""

    def __init__(self) -> None:
        super().__init__(name="Vector16f")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    """A vector is one LLVM register value."""

    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, _VF)


def _element_pointer(builder, address, index, element):
    pointer = builder.inttoptr(address, element.as_pointer())
    return builder.gep(pointer, [index])


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VF, [float(np.float32(value))] * LANES)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_VI, [value] * LANES)


def _splat(builder, scalar, vector_type):
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector_type, ir.Undefined), zeros)


def _call(builder, name: str, result, arguments):
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def _round_to_bf16(builder, bits, vector_type):
    """Round-to-nearest-even of float32 bits to the upper 16 (finite values)."""
    width = vector_type.element if isinstance(vector_type, ir.VectorType) else vector_type

    def constant(value: int) -> ir.Constant:
        if isinstance(vector_type, ir.VectorType):
            return ir.Constant(vector_type, [value] * LANES)
        return ir.Constant(width, value)

    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    rounded = builder.add(bits, builder.add(odd, constant(0x7FFF)))
    return builder.lshr(rounded, constant(16))


def _is_bf16(kind) -> bool:
    return bool(kind == types.uint16)


@intrinsic
def load(typing, kind, address, index):
    """Elements ``index .. index+15`` as a vector."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            pointer = _element_pointer(builder, args[1], args[2], _I16)
            half = builder.load(builder.bitcast(pointer, _VH.as_pointer()), align=2)
            return builder.bitcast(builder.shl(builder.zext(half, _VI), _integers(16)), _VF)
        pointer = _element_pointer(builder, args[1], args[2], _F32)
        return builder.load(builder.bitcast(pointer, _VF.as_pointer()), align=4)

    return vector(kind, types.int64, types.int64), codegen


@intrinsic
def store(typing, kind, address, index, value):
    """Write a vector to elements ``index .. index+15``, rounding to nearest even for bf16."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            bits = _round_to_bf16(builder, builder.bitcast(args[3], _VI), _VI)
            pointer = _element_pointer(builder, args[1], args[2], _I16)
            builder.store(builder.trunc(bits, _VH), builder.bitcast(pointer, _VH.as_pointer()), align=2)
        else:
            pointer = _element_pointer(builder, args[1], args[2], _F32)
            builder.store(args[3], builder.bitcast(pointer, _VF.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, vector), codegen


@intrinsic
def load_one(typing, kind, address, index):
    """One element as a float32 scalar."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            half = builder.load(_element_pointer(builder, args[1], args[2], _I16))
            return builder.bitcast(builder.shl(builder.zext(half, _I32), ir.Constant(_I32, 16)), _F32)
        return builder.load(_element_pointer(builder, args[1], args[2], _F32))

    return types.float32(kind, types.int64, types.int64), codegen


@intrinsic
def store_one(typing, kind, address, index, value):
    """Write one float32 scalar."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            bits = _round_to_bf16(builder, builder.bitcast(args[3], _I32), _I32)
            builder.store(builder.trunc(bits, _I16), _element_pointer(builder, args[1], args[2], _I16))
        else:
            builder.store(args[3], _element_pointer(builder, args[1], args[2], _F32))
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.float32), codegen


@intrinsic
def load_i32(typing, address, index):
    """One int32 element, widened to int64."""

    def codegen(context, builder, signature, args):
        value = builder.load(_element_pointer(builder, args[0], args[1], _I32))
        return builder.sext(value, ir.IntType(64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def load_i64(typing, address, index):
    """One int64 element."""

    def codegen(context, builder, signature, args):
        return builder.load(_element_pointer(builder, args[0], args[1], ir.IntType(64)))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def prefetch(typing, address):
    """Ask for the cache line at an address; does nothing else."""

    def codegen(context, builder, signature, args):
        i8p = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [i8p, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = (ir.Constant(_I32, v) for v in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], i8p), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def splat(typing, value):
    """The scalar in every lane."""

    def codegen(context, builder, signature, args):
        return _splat(builder, args[0], _VF)

    return vector(types.float32), codegen


@intrinsic
def fma(typing, a, b, c):
    """``a * b + c``, rounded once."""

    def codegen(context, builder, signature, args):
        return _call(builder, "llvm.fma.v16f32", _VF, list(args))

    return vector(vector, vector, vector), codegen


def _binary(method: str):
    @intrinsic
    def operation(typing, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, method)(args[0], args[1])

        return vector(vector, vector), codegen

    return operation


add = _binary("fadd")
sub = _binary("fsub")
mul = _binary("fmul")
div = _binary("fdiv")


@intrinsic
def maximum(typing, a, b):
    """Lane-wise maximum."""

    def codegen(context, builder, signature, args):
        return _call(builder, "llvm.maxnum.v16f32", _VF, list(args))

    return vector(vector, vector), codegen


@intrinsic
def sum_lanes(typing, a):
    """Sum of the 16 lanes, as a tree so that the order never depends on the data."""

    def codegen(context, builder, signature, args):
        value = args[0]
        for width in (8, 4, 2, 1):
            lanes = [i + width if i + width < LANES else i for i in range(LANES)]
            moved = builder.shuffle_vector(
                value, ir.Constant(_VF, ir.Undefined), ir.Constant(ir.VectorType(_I32, LANES), lanes)
            )
            value = builder.fadd(value, moved)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return types.float32(vector), codegen


@intrinsic
def max_lanes(typing, a):
    """Largest of the 16 lanes."""

    def codegen(context, builder, signature, args):
        return _call(builder, "llvm.vector.reduce.fmax.v16f32", _F32, [args[0]])

    return types.float32(vector), codegen


@intrinsic
def keep_lanes(typing, value, first, end, other):
    """Lanes ``first <= lane < end`` of ``value``, the scalar ``other`` elsewhere."""

    def codegen(context, builder, signature, args):
        lanes = ir.Constant(_VI, list(range(LANES)))
        low = _splat(builder, builder.trunc(args[1], _I32), _VI)
        high = _splat(builder, builder.trunc(args[2], _I32), _VI)
        inside = builder.and_(builder.icmp_signed(">=", lanes, low), builder.icmp_signed("<", lanes, high))
        return builder.select(inside, args[0], _splat(builder, args[3], _VF))

    return vector(vector, types.int64, types.int64, types.float32), codegen


@intrinsic
def exp(typing, a):
    """e**a to 2 units in the last place; 0 below -87 (so -inf gives 0), inf above 88.7.

    Cephes' expf: a = n ln2 + r, a degree-6 polynomial in r, and n added to the exponent.
    """

    def codegen(context, builder, signature, args):
        x = args[0]
        low = _call(builder, "llvm.maxnum.v16f32", _VF, [x, _constant(-87.0)])
        clamped = _call(builder, "llvm.minnum.v16f32", _VF, [low, _constant(88.7)])
        n = _call(builder, "llvm.floor.v16f32", _VF, [_fma(builder, clamped, 1.44269504088896341, _constant(0.5))])
        r = _call(builder, "llvm.fma.v16f32", _VF, [n, _constant(-0.693359375), clamped])
        r = _call(builder, "llvm.fma.v16f32", _VF, [n, _constant(2.12194440e-4), r])
        p = _constant(1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = _call(builder, "llvm.fma.v16f32", _VF, [p, r, _constant(c)])
        p = _call(builder, "llvm.fma.v16f32", _VF, [p, builder.fmul(r, r), builder.fadd(r, _constant(1.0))])
        # Two half-steps of the exponent keep 2**127.5 in range.
        exponent = builder.fptosi(n, _VI)
        half = builder.ashr(exponent, _integers(1))
        rest = builder.sub(exponent, half)
        for part in (half, rest):
            bits = builder.shl(builder.add(part, _integers(127)), _integers(23))
            p = builder.fmul(p, builder.bitcast(bits, _VF))
        return builder.select(builder.fcmp_ordered("<", x, _constant(-87.0)), _constant(0.0), p)

    return vector(vector), codegen


def _fma(builder, a, scale: float, addend):
    return _call(builder, "llvm.fma.v16f32", _VF, [a, _constant(scale), addend])


@intrinsic
def log(typing, a):
    """Natural logarithm of positive normal lanes, to 2 units in the last place (Cephes' logf)."""

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], _VI)
        exponent = builder.sub(builder.lshr(bits, _integers(23)), _integers(126))
        mantissa = builder.bitcast(builder.or_(builder.and_(bits, _integers(0x007FFFFF)), _integers(0x3F000000)), _VF)
        small = builder.fcmp_ordered("<", mantissa, _constant(0.707106781186547524))
        e = builder.sitofp(exponent, _VF)
        e = builder.select(small, builder.fsub(e, _constant(1.0)), e)
        x = builder.select(small, builder.fadd(mantissa, mantissa), mantissa)
        x = builder.fsub(x, _constant(1.0))
        z = builder.fmul(x, x)
        p = _constant(7.0376836292e-2)
        for c in (
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ):
            p = _call(builder, "llvm.fma.v16f32", _VF, [p, x, _constant(c)])
        y = builder.fmul(builder.fmul(x, z), p)
        y = _fma(builder, e, -2.12194440e-4, y)
        y = _fma(builder, z, -0.5, y)
        return _fma(builder, e, 0.693359375, builder.fadd(x, y))

    return vector(vector), codegen


@intrinsic
def uniform(typing, key_low, key_high, first, step):
    """Philox-4x32-10 draws in the open interval (0, 1) for counters ``(first + lane, step, 0, 0)``.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). One word of four is used:
    ``(word >> 9 + 0.5) / 2**23`` is exact in float32 and never 0 or 1.
    """

    def codegen(context, builder, signature, args):
        wide = ir.VectorType(ir.IntType(64), LANES)

        def constant64(value: int) -> ir.Constant:
            return ir.Constant(wide, [value] * LANES)

        def multiply(multiplier: int, word):
            product = builder.mul(builder.zext(word, wide), constant64(multiplier))
            high = builder.trunc(builder.lshr(product, constant64(32)), _VI)
            return high, builder.trunc(product, _VI)

        lanes = ir.Constant(_VI, list(range(LANES)))
        c0 = builder.add(_splat(builder, builder.trunc(args[2], _I32), _VI), lanes)
        c1 = _splat(builder, builder.trunc(args[3], _I32), _VI)
        c2, c3 = _integers(0), _integers(0)
        k0 = _splat(builder, builder.trunc(args[0], _I32), _VI)
        k1 = _splat(builder, builder.trunc(args[1], _I32), _VI)
        for _ in range(10):
            high0, low0 = multiply(0xD2511F53, c0)
            high1, low1 = multiply(0xCD9E8D57, c2)
            c0, c1, c2, c3 = (
                builder.xor(builder.xor(high1, c1), k0),
                low1,
                builder.xor(builder.xor(high0, c3), k1),
                low0,
            )
            k0 = builder.add(k0, _integers(0x9E3779B9 - (1 << 32)))
            k1 = builder.add(k1, _integers(0xBB67AE85 - (1 << 32)))
        word = builder.uitofp(builder.lshr(c0, _integers(9)), _VF)
        return builder.fmul(builder.fadd(word, _constant(0.5)), _constant(2.0**-23))

    return vector(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def store_i32(typing, address, index, value):
    """Write one int32 element."""

    def codegen(context, builder, signature, args):
        builder.store(builder.trunc(args[2], _I32), _element_pointer(builder, args[0], args[1], _I32))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def choose_at_least(typing, values, keys, limit, other):
    """Lanes of ``values`` whose key is at least the limit, the scalar ``other`` elsewhere."""

    def codegen(context, builder, signature, args):
        reached = builder.fcmp_ordered(">=", args[1], args[2])
        return builder.select(reached, args[0], _splat(builder, args[3], _VF))

    return vector(vector, vector, vector, types.float32), codegen


@intrinsic
def ordered_value(typing, order):
    """The float32 that stands at an integer of the order-preserving map (inverse of bits, sign folded)."""

    def codegen(context, builder, signature, args):
        i64 = ir.IntType(64)
        negative = builder.icmp_signed("<", args[0], ir.Constant(i64, 0))
        folded = builder.sub(ir.Constant(i64, -2147483648), args[0])
        return builder.bitcast(builder.trunc(builder.select(negative, folded, args[0]), _I32), _F32)

    return types.float32(types.int64), codegen


@njit(inline="always")
def keep_at_least(values, keys, limit):
    """Values whose key is at least the limit, 0 elsewhere."""
    return choose_at_least(values, keys, limit, np.float32(0.0))


@njit(inline="always")
def zero():
    """All lanes 0."""
    return splat(np.float32(0.0))


@njit(inline="always")
def tanh(a):
    """Hyperbolic tangent through one exponential: 1 - 2 / (e**2a + 1)."""
    one = splat(np.float32(1.0))
    two = splat(np.float32(2.0))
    return sub(one, div(two, add(exp(mul(two, a)), one)))
