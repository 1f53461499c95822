"""Products of bf16 pairs: 32 elements a register, two of them multiplied and added to a float32 lane at once.

Only where the processor has ``vdpbf16ps`` (AVX512-BF16). The instruction rounds to nearest even after each of its two
additions and takes denormals for 0. Every lane's sum runs in the order of the calls.
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
    round_to_bf16,
    spread,
    vector,
)

PAIR_LANES = 2 * LANES
_I16, _I64 = ir.IntType(16), ir.IntType(64)
_HALVES = ir.VectorType(_I16, PAIR_LANES)


@functools.cache
def available() -> bool:
    """Whether the code that numba compiles may multiply pairs: this processor's, or what NUMBA_CPU_FEATURES names."""
    if config.CPU_FEATURES:
        features = set(config.CPU_FEATURES.split(","))
        return {"+avx512bf16", "+avx512bw"} <= features
    found = binding.get_host_cpu_features()
    return bool(found.get("avx512bf16") and found.get("avx512bw"))


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's ``bfloat``, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BFLOATS = ir.VectorType(_BFloat(), PAIR_LANES)


class Pairs(types.Type):  # type: ignore[misc]
    """Numba type of a register of 32 bf16 elements."""

    def __init__(self) -> None:
        super().__init__(name="Pairs32bf")


pairs = Pairs()


@register_model(Pairs)
class PairsModel(models.PrimitiveModel):  # type: ignore[misc]
    """Held as 16 integers, each a pair."""

    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, INTEGERS)


def _lanes(indices: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(INTEGER, len(indices)), indices)


@intrinsic
def load_pairs(typing, address, index):
    """Elements ``index .. index+31``."""

    def codegen(context, builder, signature, args):
        pointer = element_pointer(builder, args[0], args[1], _I16)
        return builder.load(builder.bitcast(pointer, INTEGERS.as_pointer()), align=2)

    return pairs(types.int64, types.int64), codegen


@intrinsic
def low_halves(typing, values):
    """The even elements, widened; needs no instruction of its own, unlike ``dot``."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.shl(args[0], integers(16)), FLOATS)

    return vector(pairs), codegen


@intrinsic
def high_halves(typing, values):
    """The odd elements, widened."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.and_(args[0], integers(-65536)), FLOATS)

    return vector(pairs), codegen


@intrinsic
def no_pairs(typing):
    """All elements 0."""

    def codegen(context, builder, signature, args):
        return integers(0)

    return pairs(), codegen


@intrinsic
def splat_pair(typing, address, index):
    """The pair ``index, index+1`` in every lane."""

    def codegen(context, builder, signature, args):
        pointer = element_pointer(builder, args[0], args[1], _I16)
        return spread(builder, builder.load(builder.bitcast(pointer, INTEGER.as_pointer()), align=2), INTEGERS)

    return pairs(types.int64, types.int64), codegen


@intrinsic
def dot(typing, a, b, c):
    """``c[i] + a[2i+1] b[2i+1] + a[2i] b[2i]``."""

    def codegen(context, builder, signature, args):
        left, right = (builder.bitcast(value, _BFLOATS) for value in args[:2])
        return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, [args[2], left, right])

    return vector(pairs, pairs, vector), codegen


def _interleave(builder, first, second, half: int):
    """Within each 128 bits: the lower (0) or upper (1) four elements of both, alternating."""
    starts = [8 * group + 4 * half + place for group in range(4) for place in range(4)]
    order = [index for start in starts for index in (start, PAIR_LANES + start)]
    left, right = (builder.bitcast(value, _HALVES) for value in (first, second))
    return builder.bitcast(builder.shuffle_vector(left, right, _lanes(order)), INTEGERS)


def _pairing(half: int):
    @intrinsic
    def operation(typing, first, second):
        def codegen(context, builder, signature, args):
            return _interleave(builder, args[0], args[1], half)

        return pairs(pairs, pairs), codegen

    return operation


pair_low = _pairing(0)
pair_high = _pairing(1)


@intrinsic
def add_scaled(typing, address, index, scale, low, high):
    """``y += scale * sum`` on elements ``index .. index+31``; the sums' lanes are those of the paired operands."""

    def codegen(context, builder, signature, args):
        pointer = element_pointer(builder, args[0], args[1], _I16)
        place = builder.bitcast(pointer, INTEGERS.as_pointer())
        old = builder.load(place, align=2)
        factor = spread(builder, args[2], FLOATS)
        bits = []
        for half, total in enumerate(args[3:]):
            before = builder.bitcast(_interleave(builder, integers(0), old, half), FLOATS)
            after = builder.fadd(before, builder.fmul(factor, total))
            rounded = round_to_bf16(builder, builder.bitcast(after, INTEGERS), INTEGERS)
            bits.append(builder.bitcast(rounded, _HALVES))
        order = [
            2 * (4 * group + place) + PAIR_LANES * half for group in range(4) for half in (0, 1) for place in range(4)
        ]
        builder.store(builder.bitcast(builder.shuffle_vector(*bits, _lanes(order)), INTEGERS), place, align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, vector, vector), codegen


def _sums(builder, values):
    """A vector whose lane i is the sum of the lanes of ``values[i]``, in the order of ``simd.sum_lanes``."""
    owners = [[index] * LANES for index in range(LANES)]
    width = LANES // 2
    while len(values) > 1:
        merged, names = [], []
        for first in range(0, len(values), 2):
            low = [lane for lane in range(LANES) if lane % (2 * width) < width]
            both = [*low, *(LANES + lane for lane in low)]
            high = [lane + width for lane in both]
            parts = [builder.shuffle_vector(values[first], values[first + 1], _lanes(order)) for order in (both, high)]
            merged.append(builder.fadd(*parts))
            names.append([*(owners[first][lane] for lane in low), *(owners[first + 1][lane] for lane in low)])
        values, owners, width = merged, names, width // 2
    order = [owners[0].index(index) for index in range(LANES)]
    return builder.shuffle_vector(values[0], values[0], _lanes(order))


@intrinsic
def store_sums(typing, address, stride, sums):
    """Sums of four by four vectors, as bf16: row ``r`` of four at ``address + 2 r stride``."""

    def codegen(context, builder, signature, args):
        values = [builder.extract_value(args[2], index) for index in range(LANES)]
        bits = round_to_bf16(builder, builder.bitcast(_sums(builder, values), INTEGERS), INTEGERS)
        rows = builder.bitcast(builder.trunc(bits, ir.VectorType(_I16, LANES)), ir.VectorType(_I64, 4))
        for row in range(4):
            offset = builder.mul(args[1], ir.Constant(_I64, row))
            pointer = element_pointer(builder, args[0], offset, _I16)
            builder.store(
                builder.extract_element(rows, ir.Constant(INTEGER, row)),
                builder.bitcast(pointer, _I64.as_pointer()),
                align=2,
            )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.UniTuple(vector, LANES)), codegen
