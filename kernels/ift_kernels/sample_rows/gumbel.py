"""Gumbel noise from a counter-based generator, in Triton, operation for operation as the CPU computes it."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox_word(counter, step, key_low, key_high):
    """First word of Philox-4x32-10 (Salmon et al., SC 2011) for counters ``(counter, step, 0, 0)``, all uint32."""
    none = tl.zeros_like(counter)
    c0, c1, c2, c3 = counter, step + none, none, none
    k0, k1 = key_low + none, key_high + none
    m0, m1 = none + 0xD2511F53, none + 0xCD9E8D57
    for _ in tl.static_range(10):
        high0, high1 = tl.umulhi(c0, m0), tl.umulhi(c2, m1)
        low0, low1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0


@triton.jit
def natural_log(x):
    """Logarithm of positive normal float32 values (Cephes' logf), the polynomial that the CPU kernel evaluates."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = ((bits >> 23) & 0xFF) - 126
    mantissa = ((bits & 0x007FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)
    small = mantissa < 0.707106781186547524
    e = exponent.to(tl.float32)
    e = tl.where(small, e - 1.0, e)
    m = tl.where(small, mantissa + mantissa, mantissa) - 1.0
    z = m * m
    p = tl.fma(m, 7.0376836292e-2 + tl.zeros_like(m), -1.1514610310e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, 1.1676998740e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, -1.2420140846e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, 1.4249322787e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, -1.6668057665e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, 2.0000714765e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, -2.4999993993e-1 + tl.zeros_like(m))
    p = tl.fma(p, m, 3.3333331174e-1 + tl.zeros_like(m))
    y = m * z * p
    y = tl.fma(e, -2.12194440e-4 + tl.zeros_like(e), y)
    y = tl.fma(z, -0.5 + tl.zeros_like(z), y)
    return tl.fma(e, 0.693359375 + tl.zeros_like(e), m + y)


@triton.jit
def gumbel(token, seed, step):
    """``-log(-log u)`` with u in (0, 1) from the key ``seed`` (int64) and the counter (token, step), both int32."""
    low, high = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    word = philox_word(token.to(tl.uint32), step.to(tl.uint32), low, high)
    u = ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return 0.0 - natural_log(0.0 - natural_log(u))
