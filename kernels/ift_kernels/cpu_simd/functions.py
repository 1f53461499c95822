"""Exponential, logarithm, hyperbolic tangent and random numbers on 16-lane vectors."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.extending import intrinsic

from ift_kernels.cpu_simd.simd import (
    FLOATS,
    INTEGER,
    INTEGERS,
    LANES,
    add,
    call,
    constant,
    div,
    integers,
    mul,
    splat,
    spread,
    sub,
    vector,
)


@intrinsic
def exp(typing, a):
    """e**a to 2 units in the last place; 0 below -87 (so -inf gives 0), inf above 88.7.

    Cephes' expf: a = n ln2 + r, a degree-6 polynomial in r, and n added to the exponent.
    """

    def codegen(context, builder, signature, args):
        x = args[0]
        low = call(builder, "llvm.maxnum.v16f32", FLOATS, [x, constant(-87.0)])
        clamped = call(builder, "llvm.minnum.v16f32", FLOATS, [low, constant(88.7)])
        n = call(builder, "llvm.floor.v16f32", FLOATS, [_fma(builder, clamped, 1.44269504088896341, constant(0.5))])
        r = call(builder, "llvm.fma.v16f32", FLOATS, [n, constant(-0.693359375), clamped])
        r = call(builder, "llvm.fma.v16f32", FLOATS, [n, constant(2.12194440e-4), r])
        p = constant(1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = call(builder, "llvm.fma.v16f32", FLOATS, [p, r, constant(c)])
        p = call(builder, "llvm.fma.v16f32", FLOATS, [p, builder.fmul(r, r), builder.fadd(r, constant(1.0))])
        # Two half-steps of the exponent keep 2**127.5 in range.
        exponent = builder.fptosi(n, INTEGERS)
        half = builder.ashr(exponent, integers(1))
        rest = builder.sub(exponent, half)
        for part in (half, rest):
            bits = builder.shl(builder.add(part, integers(127)), integers(23))
            p = builder.fmul(p, builder.bitcast(bits, FLOATS))
        return builder.select(builder.fcmp_ordered("<", x, constant(-87.0)), constant(0.0), p)

    return vector(vector), codegen


def _fma(builder, a, scale: float, addend):
    return call(builder, "llvm.fma.v16f32", FLOATS, [a, constant(scale), addend])


@intrinsic
def log(typing, a):
    """Natural logarithm of positive normal lanes, to 2 units in the last place (Cephes' logf)."""

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], INTEGERS)
        exponent = builder.sub(builder.lshr(bits, integers(23)), integers(126))
        mantissa = builder.bitcast(builder.or_(builder.and_(bits, integers(0x007FFFFF)), integers(0x3F000000)), FLOATS)
        small = builder.fcmp_ordered("<", mantissa, constant(0.707106781186547524))
        e = builder.sitofp(exponent, FLOATS)
        e = builder.select(small, builder.fsub(e, constant(1.0)), e)
        x = builder.select(small, builder.fadd(mantissa, mantissa), mantissa)
        x = builder.fsub(x, constant(1.0))
        z = builder.fmul(x, x)
        p = constant(7.0376836292e-2)
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
            p = call(builder, "llvm.fma.v16f32", FLOATS, [p, x, constant(c)])
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
            high = builder.trunc(builder.lshr(product, constant64(32)), INTEGERS)
            return high, builder.trunc(product, INTEGERS)

        lanes = ir.Constant(INTEGERS, list(range(LANES)))
        c0 = builder.add(spread(builder, builder.trunc(args[2], INTEGER), INTEGERS), lanes)
        c1 = spread(builder, builder.trunc(args[3], INTEGER), INTEGERS)
        c2, c3 = integers(0), integers(0)
        k0 = spread(builder, builder.trunc(args[0], INTEGER), INTEGERS)
        k1 = spread(builder, builder.trunc(args[1], INTEGER), INTEGERS)
        for _ in range(10):
            high0, low0 = multiply(0xD2511F53, c0)
            high1, low1 = multiply(0xCD9E8D57, c2)
            c0, c1, c2, c3 = (
                builder.xor(builder.xor(high1, c1), k0),
                low1,
                builder.xor(builder.xor(high0, c3), k1),
                low0,
            )
            k0 = builder.add(k0, integers(0x9E3779B9 - (1 << 32)))
            k1 = builder.add(k1, integers(0xBB67AE85 - (1 << 32)))
        word = builder.uitofp(builder.lshr(c0, integers(9)), FLOATS)
        return builder.fmul(builder.fadd(word, constant(0.5)), constant(2.0**-23))

    return vector(types.int64, types.int64, types.int64, types.int64), codegen


@njit(inline="always")
def tanh(a):
    """Hyperbolic tangent through one exponential: 1 - 2 / (e**2a + 1)."""
    one = splat(np.float32(1.0))
    two = splat(np.float32(2.0))
    return sub(one, div(two, add(exp(mul(two, a)), one)))
