"""Keys in Triton that order float32 values, and equal ones by their token ids."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

LOWEST_KEY = tl.constexpr(-9223372036854775807)


@triton.jit
def ordered(x):
    """An int32 that orders like the float32 x; both zeros are one."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def from_ordered(order):
    """The float32 of an order."""
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def key_of(x, token):
    """An int64 that orders by value, then by smaller token id."""
    return (ordered(x).to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)


@triton.jit
def token_of(key):
    """The token id of a key."""
    return 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def value_of(key):
    """The value of a key."""
    return from_ordered((key >> 32).to(tl.int32))
