"""Both halves of LoRA for one row and for four, by products of bf16 pairs. Widths are multiples of 32.

Shrunk rows are rounded to bf16 between the halves.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

from ift_kernels.cpu_simd.bf16 import (
    PAIR_LANES,
    add_scaled,
    dot,
    load_pairs,
    no_pairs,
    pair_high,
    pair_low,
    splat_pair,
    store_sums,
)
from ift_kernels.cpu_simd.inner import inlined
from ift_kernels.cpu_simd.simd import BF16, prefetch, store_one, sum_lanes, zero


@inlined
def _fetch(address, size):
    for place in range(0, size, 64):
        prefetch(address + place)


@inlined
def _fetch_four(factor_a, factor_b, first, rank, width, columns):
    """Ask for what comes after ranks ``first .. first+3``: the next ranks of A, and these of B for later.

    Factors are short streams, over before a processor that prefetches by itself has noticed them.
    """
    _fetch(factor_a + 2 * width * (first + 4), 2 * width * min(4, rank - first - 4))
    _fetch(factor_b + 2 * columns * first, 2 * columns * min(4, rank - first))


@inlined
def _shrink_one(x, factor, after, rank, width, columns, shrunk, fresh):
    """``shrunk[r] = A[r] . x``, four ranks at a time; past the end the last one is computed again."""
    for first in range(0, rank, 4):
        if fresh:
            _fetch_four(factor, after, first, rank, width, columns)
        r1, r2, r3 = min(first + 1, rank - 1), min(first + 2, rank - 1), min(first + 3, rank - 1)
        s0, s1, s2, s3 = zero(), zero(), zero(), zero()
        for k in range(0, width, PAIR_LANES):
            v = load_pairs(x, k)
            s0 = dot(load_pairs(factor, first * width + k), v, s0)
            s1 = dot(load_pairs(factor, r1 * width + k), v, s1)
            s2 = dot(load_pairs(factor, r2 * width + k), v, s2)
            s3 = dot(load_pairs(factor, r3 * width + k), v, s3)
        store_one(BF16, shrunk, first, sum_lanes(s0))
        store_one(BF16, shrunk, first + 1, sum_lanes(s1))
        store_one(BF16, shrunk, first + 2, sum_lanes(s2))
        store_one(BF16, shrunk, first + 3, sum_lanes(s3))


@inlined
def _row_pair(factor, r, rank, columns, column):
    """Elements of two neighbouring ranks of B^T; zeros past the end."""
    even = load_pairs(factor, r * columns + column)
    odd = load_pairs(factor, (r + 1) * columns + column) if r + 1 < rank else no_pairs()
    return pair_low(even, odd), pair_high(even, odd)


@inlined
def _expand_one(factor, rank, columns, shrunk, scale, y):
    """``y += scale sum_r shrunk[r] B^T[r]`` for one row, 128 columns at a time."""
    column = 0
    while column + 4 * PAIR_LANES <= columns:
        a0, a1, b0, b1, c0, c1, d0, d1 = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
        for r in range(0, rank, 2):
            t = splat_pair(shrunk, r)
            low, high = _row_pair(factor, r, rank, columns, column)
            a0, a1 = dot(t, low, a0), dot(t, high, a1)
            low, high = _row_pair(factor, r, rank, columns, column + PAIR_LANES)
            b0, b1 = dot(t, low, b0), dot(t, high, b1)
            low, high = _row_pair(factor, r, rank, columns, column + 2 * PAIR_LANES)
            c0, c1 = dot(t, low, c0), dot(t, high, c1)
            low, high = _row_pair(factor, r, rank, columns, column + 3 * PAIR_LANES)
            d0, d1 = dot(t, low, d0), dot(t, high, d1)
        add_scaled(y, column, scale, a0, a1)
        add_scaled(y, column + PAIR_LANES, scale, b0, b1)
        add_scaled(y, column + 2 * PAIR_LANES, scale, c0, c1)
        add_scaled(y, column + 3 * PAIR_LANES, scale, d0, d1)
        column += 4 * PAIR_LANES
    while column < columns:
        a0, a1 = zero(), zero()
        for r in range(0, rank, 2):
            t = splat_pair(shrunk, r)
            low, high = _row_pair(factor, r, rank, columns, column)
            a0, a1 = dot(t, low, a0), dot(t, high, a1)
        add_scaled(y, column, scale, a0, a1)
        column += PAIR_LANES


def one_row(kind, x, factor_a, factor_b, rank, width, columns, shrunk, stride, scale, y, fresh):
    """Add one row's change. shrunk: a scratch; fresh: the factors were not read just now."""
    _shrink_one(x, factor_a, factor_b, rank, width, columns, shrunk, fresh)
    _expand_one(factor_b, rank, columns, shrunk, scale, y)


@inlined
def _shrink_four(x0, x1, x2, x3, factor, after, rank, width, columns, shrunk, stride, fresh):
    """Four ranks of four rows at a time; past the end the last rank is computed again."""
    for first in range(0, rank, 4):
        if fresh:
            _fetch_four(factor, after, first, rank, width, columns)
        f0 = factor + 2 * width * first
        f1 = factor + 2 * width * min(first + 1, rank - 1)
        f2 = factor + 2 * width * min(first + 2, rank - 1)
        f3 = factor + 2 * width * min(first + 3, rank - 1)
        a0, a1, a2, a3, b0, b1, b2, b3 = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
        c0, c1, c2, c3, d0, d1, d2, d3 = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
        for k in range(0, width, PAIR_LANES):
            v0, v1, v2, v3 = load_pairs(f0, k), load_pairs(f1, k), load_pairs(f2, k), load_pairs(f3, k)
            x = load_pairs(x0, k)
            a0, a1, a2, a3 = dot(v0, x, a0), dot(v1, x, a1), dot(v2, x, a2), dot(v3, x, a3)
            x = load_pairs(x1, k)
            b0, b1, b2, b3 = dot(v0, x, b0), dot(v1, x, b1), dot(v2, x, b2), dot(v3, x, b3)
            x = load_pairs(x2, k)
            c0, c1, c2, c3 = dot(v0, x, c0), dot(v1, x, c1), dot(v2, x, c2), dot(v3, x, c3)
            x = load_pairs(x3, k)
            d0, d1, d2, d3 = dot(v0, x, d0), dot(v1, x, d1), dot(v2, x, d2), dot(v3, x, d3)
        store_sums(shrunk + 2 * first, stride, (a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3))


@inlined
def _expand_four(factor, rank, columns, shrunk, stride, scale, y0, y1, y2, y3):
    """Two ranks of 32 columns of four rows at a time."""
    for column in range(0, columns, PAIR_LANES):
        a0, a1, b0, b1, c0, c1, d0, d1 = zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()
        for r in range(0, rank, 2):
            low, high = _row_pair(factor, r, rank, columns, column)
            t = splat_pair(shrunk, r)
            a0, a1 = dot(t, low, a0), dot(t, high, a1)
            t = splat_pair(shrunk, stride + r)
            b0, b1 = dot(t, low, b0), dot(t, high, b1)
            t = splat_pair(shrunk, 2 * stride + r)
            c0, c1 = dot(t, low, c0), dot(t, high, c1)
            t = splat_pair(shrunk, 3 * stride + r)
            d0, d1 = dot(t, low, d0), dot(t, high, d1)
        add_scaled(y0, column, scale, a0, a1)
        add_scaled(y1, column, scale, b0, b1)
        add_scaled(y2, column, scale, c0, c1)
        add_scaled(y3, column, scale, d0, d1)


def four_rows(
    kind, x0, x1, x2, x3, factor_a, factor_b, rank, width, columns, shrunk, stride, scale, y0, y1, y2, y3, fresh
):
    """The same for four rows, whose shrunk values are ``stride`` apart."""
    _shrink_four(x0, x1, x2, x3, factor_a, factor_b, rank, width, columns, shrunk, stride, fresh)
    _expand_four(factor_b, rank, columns, shrunk, stride, scale, y0, y1, y2, y3)
