"""Products of bytes: 64 of them a register, four by four multiplied and added to a 32-bit integer lane.

Written with the instructions of AVX2, which every x86-64 processor of the last ten years has; a register of 64 bytes is
two of theirs. Products of pairs are 16-bit and must fit: ``|a b| + |a' b'| <= 32767``.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import functools

from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.core.extending import intrinsic, models, register_model

from ift_kernels.cpu_simd.simd import (
    FLOATS,
    INTEGER,
    INTEGERS,
    LANES,
    call,
    element_pointer,
    integers,
    spread,
    vector,
)

_I8, _I16, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)
_HALF_BYTES, _HALF_PAIRS = ir.VectorType(_I8, 32), ir.VectorType(_I16, 16)
_HALF_INTEGERS = ir.VectorType(INTEGER, 8)
_BYTES, _PAIRS = ir.VectorType(_I8, 64), ir.VectorType(_I16, 32)
_HALVES = ir.VectorType(ir.HalfType(), LANES)


@functools.cache
def available() -> bool:
    """Whether compiled code may use AVX2 and F16C: this processor's, or what NUMBA_CPU_FEATURES names."""
    if config.CPU_FEATURES:
        return {"+avx2", "+f16c"} <= set(config.CPU_FEATURES.split(","))
    found = binding.get_host_cpu_features()
    return bool(found.get("avx2") and found.get("f16c"))


class Integers(types.Type):  # type: ignore[misc]
    """Numba type of a register of 16 32-bit integers, or of the 64 bytes or 32 16-bit integers in their place."""

    def __init__(self) -> None:
        super().__init__(name="Vector16i")


integer_vector = Integers()


@register_model(Integers)
class IntegersModel(models.PrimitiveModel):  # type: ignore[misc]
    """Held as 16 integers."""

    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, INTEGERS)


def _lanes(indices) -> ir.Constant:
    return ir.Constant(ir.VectorType(INTEGER, len(indices)), list(indices))


def _by_halves(builder, name: str, part_type, result_type, *operands):
    """An AVX2 instruction on both halves of registers of integers."""
    parts = []
    for half in (range(8), range(8, 16)):
        taken = [builder.shuffle_vector(value, value, _lanes(half)) for value in operands]
        parts.append(call(builder, name, result_type, [builder.bitcast(value, part_type) for value in taken]))
    low, high = (builder.bitcast(part, _HALF_INTEGERS) for part in parts)
    return builder.shuffle_vector(low, high, _lanes(range(16)))


def _multiply_bytes(builder, unsigned, signed):
    return _by_halves(builder, "llvm.x86.avx2.pmadd.ub.sw", _HALF_BYTES, _HALF_PAIRS, unsigned, signed)


def _add_pairs(builder, values):
    ones = integers(0x00010001)
    return _by_halves(builder, "llvm.x86.avx2.pmadd.wd", _HALF_PAIRS, _HALF_INTEGERS, values, ones)


@intrinsic
def load_bytes(typing, address, index):
    """The 64 bytes from ``index`` on."""

    def codegen(context, builder, signature, args):
        pointer = element_pointer(builder, args[0], args[1], _I8)
        return builder.load(builder.bitcast(pointer, INTEGERS.as_pointer()), align=1)

    return integer_vector(types.int64, types.int64), codegen


@intrinsic
def splat_word(typing, address, index):
    """The four bytes from ``index`` on in every lane."""

    def codegen(context, builder, signature, args):
        pointer = element_pointer(builder, args[0], args[1], _I8)
        return spread(builder, builder.load(builder.bitcast(pointer, INTEGER.as_pointer()), align=1), INTEGERS)

    return integer_vector(types.int64, types.int64), codegen


@intrinsic
def dot_bytes(typing, a, b, total):
    """``total[i] + sum of a[4i+j] b[4i+j]``: signed bytes, those of b above -128, 32-bit sums.

    The instruction wants one side unsigned: the magnitudes of a, and b with their signs.
    """

    def codegen(context, builder, signature, args):
        sizes = builder.bitcast(args[0], _BYTES)
        sizes = call(builder, "llvm.abs.v64i8", _BYTES, [sizes, ir.Constant(ir.IntType(1), 0)])
        signed = _by_halves(builder, "llvm.x86.avx2.psign.b", _HALF_BYTES, _HALF_BYTES, args[1], args[0])
        products = _multiply_bytes(builder, builder.bitcast(sizes, INTEGERS), signed)
        return builder.add(args[2], _add_pairs(builder, products))

    return integer_vector(integer_vector, integer_vector, integer_vector), codegen


@intrinsic
def dot_pairs(typing, unsigned, signed, total):
    """The same of pairs with 16-bit sums: 32 lanes, which the caller keeps from overflowing."""

    def codegen(context, builder, signature, args):
        products = builder.bitcast(_multiply_bytes(builder, args[0], args[1]), _PAIRS)
        return builder.bitcast(builder.add(builder.bitcast(args[2], _PAIRS), products), INTEGERS)

    return integer_vector(integer_vector, integer_vector, integer_vector), codegen


@intrinsic
def widen_pairs(typing, values):
    """``values[2i] + values[2i+1]`` of 16-bit integers."""

    def codegen(context, builder, signature, args):
        return _add_pairs(builder, args[0])

    return integer_vector(integer_vector), codegen


@intrinsic
def subtract(typing, a, b):
    """``a - b`` of 32-bit integers."""

    def codegen(context, builder, signature, args):
        return builder.sub(args[0], args[1])

    return integer_vector(integer_vector, integer_vector), codegen


@intrinsic
def low_nibbles(typing, values):
    """The lower four bits of each byte."""

    def codegen(context, builder, signature, args):
        return builder.and_(args[0], integers(0x0F0F0F0F))

    return integer_vector(integer_vector), codegen


@intrinsic
def high_nibbles(typing, values):
    """The upper four bits of each byte."""

    def codegen(context, builder, signature, args):
        return builder.and_(builder.lshr(args[0], integers(4)), integers(0x0F0F0F0F))

    return integer_vector(integer_vector), codegen


@intrinsic
def splat_integer(typing, value):
    """The integer in every lane."""

    def codegen(context, builder, signature, args):
        return spread(builder, builder.trunc(args[0], INTEGER), INTEGERS)

    return integer_vector(types.int64), codegen


@intrinsic
def to_float(typing, values):
    """Every lane as float32."""

    def codegen(context, builder, signature, args):
        return builder.sitofp(args[0], FLOATS)

    return vector(integer_vector), codegen


@intrinsic
def load_half(typing, address, index):
    """The float16 elements ``index .. index+15``, widened."""

    def codegen(context, builder, signature, args):
        pointer = builder.gep(builder.inttoptr(args[0], ir.HalfType().as_pointer()), [args[1]])
        values = builder.load(builder.bitcast(pointer, _HALVES.as_pointer()), align=2)
        return builder.fpext(values, FLOATS)

    return vector(types.int64, types.int64), codegen


@intrinsic
def store_half(typing, address, index, value):
    """Write a float32 as the float16 element ``index``, rounded to nearest even; returns what was written."""

    def codegen(context, builder, signature, args):
        half = builder.fptrunc(args[2], ir.HalfType())
        builder.store(half, element_pointer(builder, args[0], args[1], ir.HalfType()), align=2)
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.int64, types.int64, types.float32), codegen


@intrinsic
def round_lanes(typing, values):
    """Lanes rounded to whole numbers, to nearest even."""

    def codegen(context, builder, signature, args):
        return call(builder, "llvm.rint.v16f32", FLOATS, [args[0]])

    return vector(vector), codegen


@intrinsic
def store_rounded(typing, address, index, values):
    """Write lanes as signed bytes ``index .. index+15``, rounded to nearest even; returns their sum."""

    def codegen(context, builder, signature, args):
        rounded = builder.fptosi(call(builder, "llvm.rint.v16f32", FLOATS, [args[2]]), INTEGERS)
        lanes = ir.VectorType(_I8, LANES)
        pointer = element_pointer(builder, args[0], args[1], _I8)
        builder.store(builder.trunc(rounded, lanes), builder.bitcast(pointer, lanes.as_pointer()), align=1)
        total = call(builder, "llvm.vector.reduce.add.v16i32", INTEGER, [rounded])
        return builder.sext(total, _I64)

    return types.int64(types.int64, types.int64, vector), codegen


@intrinsic
def magnitude(typing, values):
    """Absolute values of float lanes."""

    def codegen(context, builder, signature, args):
        return call(builder, "llvm.fabs.v16f32", FLOATS, [args[0]])

    return vector(vector), codegen
