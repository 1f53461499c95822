"""What truncations leave of a row of tempered logits on the CPU, as the smallest one that stays.

No sort is needed: a threshold is found by bisection over the ordered integer images of the float32 values, with one
vector pass over the row a step.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np

from ift_kernels.cpu_simd.functions import exp
from ift_kernels.cpu_simd.inner import inner
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    choose_at_least,
    fma,
    keep_at_least,
    load,
    load_one,
    max_lanes,
    maximum,
    mul,
    ordered_value,
    splat,
    store,
    store_one,
    sub,
    sum_lanes,
    zero,
)

_FP = np.float32(0)
_NONE = np.float32(-np.inf)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
LOWEST = np.float32(-3.4e38)
_LEAST = np.float32(-3.4028235e38)


@inner
def _order(value):
    """An int64 that orders like the float32 ``value``."""
    bits = np.int64(np.float32(value).view(np.int32))
    return bits if bits >= 0 else np.int64(-2147483648) - bits


@inner
def _mass_at_least(weights, row, padded, threshold):
    """Sum of the weights whose value is at least the threshold."""
    total = zero()
    limit = splat(threshold)
    for i in range(0, padded, LANES):
        total = add(total, keep_at_least(load(_FP, weights, i), load(_FP, row, i), limit))
    return sum_lanes(total)


@inner
def count_threshold(ones, row, padded, top, wanted):
    """Largest threshold that keeps at least ``wanted`` values; ``ones`` is memory for as many floats."""
    for i in range(0, padded, LANES):
        store(_FP, ones, i, splat(_ONE))
    low, high = _order(LOWEST), _order(top)
    while low < high:
        middle = (low + high + 1) // 2
        if _mass_at_least(ones, row, padded, ordered_value(middle)) >= wanted:
            low = middle
        else:
            high = middle - 1
    return ordered_value(low)


@inner
def weigh(weights, row, padded, top, threshold):
    """``weights = exp(value - top)`` where the value is at least the threshold, else 0; returns their sum."""
    limit = splat(threshold)
    total = zero()
    for i in range(0, padded, LANES):
        z = load(_FP, row, i)
        w = keep_at_least(exp(sub(z, splat(top))), z, limit)
        store(_FP, weights, i, w)
        total = add(total, w)
    return sum_lanes(total)


@inner
def mass_threshold(weights, row, padded, top, wanted):
    """Smallest threshold such that the mass strictly above it is less than ``wanted``."""
    low, high = _order(LOWEST), _order(top)
    while low < high:
        middle = (low + high) // 2
        if _mass_at_least(weights, row, padded, ordered_value(middle + 1)) < wanted:
            high = middle
        else:
            low = middle + 1
    return ordered_value(low)


@inner
def sigma_threshold(row, padded, top, n):
    """``top - n sigma`` of untempered logits, sigma being the standard deviation of those that are not -inf."""
    least, deepest = splat(_LEAST), splat(-top)
    for i in range(0, padded, LANES):
        x = load(_FP, row, i)
        deepest = maximum(deepest, choose_at_least(sub(zero(), x), x, least, -top))
    half = np.float32(0.5) * top + np.float32(0.5) * max_lanes(deepest)
    if half == 0:
        return top
    # Differences are measured in their own size, or the squares of large ones would overflow, of small ones vanish.
    bits = np.int64(np.float32(half).view(np.int32))
    exponent = min(max((bits >> 23) - 127, np.int64(-120)), np.int64(120))
    scale = ordered_value((127 - exponent) << 23)
    factor, origin = splat(scale), splat(top * scale)
    count, total = zero(), zero()
    for i in range(0, padded, LANES):
        x = load(_FP, row, i)
        count = add(count, keep_at_least(splat(_ONE), x, least))
        total = add(total, keep_at_least(sub(mul(x, factor), origin), x, least))
    possible = sum_lanes(count)
    mean = splat(sum_lanes(total) / possible)
    squares = zero()
    for i in range(0, padded, LANES):
        x = load(_FP, row, i)
        distance = keep_at_least(sub(sub(mul(x, factor), origin), mean), x, least)
        squares = fma(distance, distance, squares)
    return top - n * np.sqrt(sum_lanes(squares) / possible) / scale


@inner
def collision_threshold(weights, padded, top, mass):
    """``top + log(sum w^2 / sum w)``: where a probability is the sum of all their squares."""
    squares = zero()
    for i in range(0, padded, LANES):
        w = load(_FP, weights, i)
        squares = fma(w, w, squares)
    return top + np.float32(np.log(sum_lanes(squares) / mass))


@inner
def _moments_at_least(weights, row, padded, top, threshold):
    """Sum of the weights, and of ``weight * (value - top)``, where the value is at least the threshold."""
    total, moment = zero(), zero()
    limit, highest = splat(threshold), splat(top)
    for i in range(0, padded, LANES):
        z, w = load(_FP, row, i), load(_FP, weights, i)
        total = add(total, keep_at_least(w, z, limit))
        moment = add(moment, keep_at_least(mul(w, sub(z, highest)), z, limit))
    mass = sum_lanes(total)
    return mass, sum_lanes(moment)


@inner
def _entropy(mass, moment):
    return np.float32(np.log(mass)) - moment / mass if mass > 0 else _ZERO


@inner
def keep_entropy(weights, row, padded, top, threshold, alpha):
    """The most likely tokens whose entropy is at most ``alpha`` times that of all from ``threshold`` on.

    Entropy grows with every less likely token, so the bound is found by bisection. Returns the smallest value that
    stays; of the tokens that have it, those that are one too many are set to -inf, the last ids first.
    """
    mass, moment = _moments_at_least(weights, row, padded, top, threshold)
    bound = alpha * _entropy(mass, moment)
    low, high = _order(threshold), _order(top) + 1
    while low < high:
        middle = (low + high) // 2
        mass, moment = _moments_at_least(weights, row, padded, top, ordered_value(middle))
        if _entropy(mass, moment) <= bound:
            high = middle
        else:
            low = middle + 1
    mass, moment = _moments_at_least(weights, row, padded, top, ordered_value(low))
    below = _largest_up_to(row, padded, ordered_value(low - 1))
    if below < threshold:
        return ordered_value(low)
    w = np.exp(below - top)
    room = 1 if mass == 0 else 0
    while w > 0 and room < padded:
        more = np.float32(room + 1) * w
        if _entropy(mass + more, moment + more * (below - top)) > bound:
            break
        room += 1
    _keep_first(row, padded, below, room)
    return below


@inner
def _lanes_up_to(row, i, limit):
    """The largest of 16 values that are at most ``limit``, -inf if there is none."""
    x = load(_FP, row, i)
    return max_lanes(choose_at_least(x, sub(zero(), x), splat(-limit), _NONE))


@inner
def _largest_up_to(row, padded, limit):
    best = _NONE
    for i in range(0, padded, LANES):
        best = max(best, _lanes_up_to(row, i, limit))
    return best


@inner
def _keep_first(row, padded, value, room):
    """Of the entries equal to ``value`` the first ``room`` stay, the others become -inf."""
    for i in range(0, padded, LANES):
        if _lanes_up_to(row, i, value) != value:
            continue
        for j in range(i, i + LANES):
            if load_one(_FP, row, j) == value:
                if room == 0:
                    store_one(_FP, row, j, _NONE)
                else:
                    room -= 1
