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

FLOAT = ir.FloatType()
INTEGER = ir.IntType(32)
_I16 = ir.IntType(16)
FLOATS = ir.VectorType(FLOAT, LANES)
INTEGERS = ir.VectorType(INTEGER, LANES)
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
        super().__init__(manager, fe_type, FLOATS)


def element_pointer(builder, address, index, element):
    pointer = builder.inttoptr(address, element.as_pointer())
    return builder.gep(pointer, [index])


def constant(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [float(np.float32(value))] * LANES)


def integers(value: int) -> ir.Constant:
    return ir.Constant(INTEGERS, [value] * LANES)


def spread(builder, scalar, vector_type):
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.Constant(INTEGER, 0))
    zeros = ir.Constant(ir.VectorType(INTEGER, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector_type, ir.Undefined), zeros)


def call(builder, name: str, result, arguments):
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def round_to_bf16(builder, bits, vector_type):
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
            pointer = element_pointer(builder, args[1], args[2], _I16)
            half = builder.load(builder.bitcast(pointer, _VH.as_pointer()), align=2)
            return builder.bitcast(builder.shl(builder.zext(half, INTEGERS), integers(16)), FLOATS)
        pointer = element_pointer(builder, args[1], args[2], FLOAT)
        return builder.load(builder.bitcast(pointer, FLOATS.as_pointer()), align=4)

    return vector(kind, types.int64, types.int64), codegen


@intrinsic
def load_bytes(typing, address, index):
    """The unsigned bytes ``index .. index+15`` as a vector of float32."""

    def codegen(context, builder, signature, args):
        i8 = ir.IntType(8)
        first = builder.gep(builder.inttoptr(args[0], i8.as_pointer()), [args[1]])
        lanes = builder.load(builder.bitcast(first, ir.VectorType(i8, LANES).as_pointer()), align=1)
        return builder.uitofp(lanes, ir.VectorType(ir.FloatType(), LANES))

    return vector(types.int64, types.int64), codegen


@intrinsic
def store(typing, kind, address, index, value):
    """Write a vector to elements ``index .. index+15``, rounding to nearest even for bf16."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            bits = round_to_bf16(builder, builder.bitcast(args[3], INTEGERS), INTEGERS)
            pointer = element_pointer(builder, args[1], args[2], _I16)
            builder.store(builder.trunc(bits, _VH), builder.bitcast(pointer, _VH.as_pointer()), align=2)
        else:
            pointer = element_pointer(builder, args[1], args[2], FLOAT)
            builder.store(args[3], builder.bitcast(pointer, FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, vector), codegen


@intrinsic
def load_one(typing, kind, address, index):
    """One element as a float32 scalar."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            half = builder.load(element_pointer(builder, args[1], args[2], _I16))
            return builder.bitcast(builder.shl(builder.zext(half, INTEGER), ir.Constant(INTEGER, 16)), FLOAT)
        return builder.load(element_pointer(builder, args[1], args[2], FLOAT))

    return types.float32(kind, types.int64, types.int64), codegen


@intrinsic
def store_one(typing, kind, address, index, value):
    """Write one float32 scalar."""

    def codegen(context, builder, signature, args):
        if _is_bf16(kind):
            bits = round_to_bf16(builder, builder.bitcast(args[3], INTEGER), INTEGER)
            builder.store(builder.trunc(bits, _I16), element_pointer(builder, args[1], args[2], _I16))
        else:
            builder.store(args[3], element_pointer(builder, args[1], args[2], FLOAT))
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.float32), codegen


@intrinsic
def load_i32(typing, address, index):
    """One int32 element, widened to int64."""

    def codegen(context, builder, signature, args):
        value = builder.load(element_pointer(builder, args[0], args[1], INTEGER))
        return builder.sext(value, ir.IntType(64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def load_i64(typing, address, index):
    """One int64 element."""

    def codegen(context, builder, signature, args):
        return builder.load(element_pointer(builder, args[0], args[1], ir.IntType(64)))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def prefetch(typing, address):
    """Ask for the cache line at an address; does nothing else."""

    def codegen(context, builder, signature, args):
        i8p = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [i8p, INTEGER, INTEGER, INTEGER])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = (ir.Constant(INTEGER, v) for v in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], i8p), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def splat(typing, value):
    """The scalar in every lane."""

    def codegen(context, builder, signature, args):
        return spread(builder, args[0], FLOATS)

    return vector(types.float32), codegen


@intrinsic
def fma(typing, a, b, c):
    """``a * b + c``, rounded once."""

    def codegen(context, builder, signature, args):
        return call(builder, "llvm.fma.v16f32", FLOATS, list(args))

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
        return call(builder, "llvm.maxnum.v16f32", FLOATS, list(args))

    return vector(vector, vector), codegen


@intrinsic
def sum_lanes(typing, a):
    """Sum of the 16 lanes, as a tree so that the order never depends on the data."""

    def codegen(context, builder, signature, args):
        value = args[0]
        for width in (8, 4, 2, 1):
            lanes = [i + width if i + width < LANES else i for i in range(LANES)]
            moved = builder.shuffle_vector(
                value, ir.Constant(FLOATS, ir.Undefined), ir.Constant(ir.VectorType(INTEGER, LANES), lanes)
            )
            value = builder.fadd(value, moved)
        return builder.extract_element(value, ir.Constant(INTEGER, 0))

    return types.float32(vector), codegen


@intrinsic
def max_lanes(typing, a):
    """Largest of the 16 lanes."""

    def codegen(context, builder, signature, args):
        return call(builder, "llvm.vector.reduce.fmax.v16f32", FLOAT, [args[0]])

    return types.float32(vector), codegen


@intrinsic
def keep_lanes(typing, value, first, end, other):
    """Lanes ``first <= lane < end`` of ``value``, the scalar ``other`` elsewhere."""

    def codegen(context, builder, signature, args):
        lanes = ir.Constant(INTEGERS, list(range(LANES)))
        low = spread(builder, builder.trunc(args[1], INTEGER), INTEGERS)
        high = spread(builder, builder.trunc(args[2], INTEGER), INTEGERS)
        inside = builder.and_(builder.icmp_signed(">=", lanes, low), builder.icmp_signed("<", lanes, high))
        return builder.select(inside, args[0], spread(builder, args[3], FLOATS))

    return vector(vector, types.int64, types.int64, types.float32), codegen


@intrinsic
def store_i32(typing, address, index, value):
    """Write one int32 element."""

    def codegen(context, builder, signature, args):
        builder.store(builder.trunc(args[2], INTEGER), element_pointer(builder, args[0], args[1], INTEGER))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def choose_at_least(typing, values, keys, limit, other):
    """Lanes of ``values`` whose key is at least the limit, the scalar ``other`` elsewhere."""

    def codegen(context, builder, signature, args):
        reached = builder.fcmp_ordered(">=", args[1], args[2])
        return builder.select(reached, args[0], spread(builder, args[3], FLOATS))

    return vector(vector, vector, vector, types.float32), codegen


@intrinsic
def choose_by_bits(typing, values, bits, other):
    """Lanes of ``values`` whose bit is set, lane 0 the lowest, the scalar ``other`` elsewhere."""

    def codegen(context, builder, signature, args):
        chosen = builder.bitcast(builder.trunc(args[1], _I16), ir.VectorType(ir.IntType(1), LANES))
        return builder.select(chosen, args[0], spread(builder, args[2], FLOATS))

    return vector(vector, types.int64, types.float32), codegen


@intrinsic
def ordered_value(typing, order):
    """The float32 that stands at an integer of the order-preserving map (inverse of bits, sign folded)."""

    def codegen(context, builder, signature, args):
        i64 = ir.IntType(64)
        negative = builder.icmp_signed("<", args[0], ir.Constant(i64, 0))
        folded = builder.sub(ir.Constant(i64, -2147483648), args[0])
        return builder.bitcast(builder.trunc(builder.select(negative, folded, args[0]), INTEGER), FLOAT)

    return types.float32(types.int64), codegen


@njit(inline="always")
def keep_at_least(values, keys, limit):
    """Values whose key is at least the limit, 0 elsewhere."""
    return choose_at_least(values, keys, limit, np.float32(0.0))


@njit(inline="always")
def zero():
    """All lanes 0."""
    return splat(np.float32(0.0))
