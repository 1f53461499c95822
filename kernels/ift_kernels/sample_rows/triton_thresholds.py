"""What truncations leave of rows of logits on a GPU, as the smallest tempered logit that stays, in Triton.

Thresholds are found by bisection over the ordered integers of the floats; each step is a pass over the row.
"""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from ift_kernels.float_keys import from_ordered, ordered

ROW_PARAMETERS = [
    "temperature_ptr", "top_p_ptr", "min_p_ptr", "top_k_ptr", "targets_ptr", "thresholds_ptr", "seeds_ptr", "steps_ptr",
    "sigma_ptr", "p_less_ptr", "top_h_ptr", "lasts_ptr", "near_ptr", "masses_ptr", "tops_ptr", "probabilities_ptr",
    "wanted_ptr", "tokens_ptr", "top_ids_ptr", "measures_ptr",
]  # fmt: skip
"""Addresses of one value a row, whose alignment differs from batch to batch."""
ANY_TOKEN = tl.constexpr(2**31 - 1)
_SMALLEST = tl.constexpr(1.17549435e-38)
_LEAST = tl.constexpr(-3.4028235e38)
_FAR = tl.constexpr(2.0**100)


@triton.jit
def scale(top, temperature):
    """What is subtracted from a row's logits, and what they are then multiplied by.

    Far out, the largest logit becomes the zero of the row, so that nothing overflows but what is never drawn.
    """
    inverse = tl.div_rn(tl.full((), 1.0, tl.float32), tl.maximum(temperature, _SMALLEST))
    return tl.where(tl.abs(top) * inverse < _FAR, 0.0, top), inverse


@triton.jit
def _masses(x_row, origin, inverse, top, limit, p1, p2, p3, COUNT: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr):
    """How many tempered logits, or how much mass of those at least ``limit``, reach each of three pivots."""
    s1, s2, s3 = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        weight = tl.where(z >= limit, 1.0 if COUNT else tl.exp(z - top), 0.0)
        s1 += tl.where(z >= p1, weight, 0.0)
        s2 += tl.where(z >= p2, weight, 0.0)
        s3 += tl.where(z >= p3, weight, 0.0)
    return tl.sum(s1, 0), tl.sum(s2, 0), tl.sum(s3, 0)


@triton.jit
def _bisect(x_row, origin, inverse, top, limit, wanted, COUNT: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr):
    """The largest threshold that at least ``wanted`` of the count or mass reaches (top-p keeps ties with it)."""
    low, high = ordered(tl.full((), -3.4e38, tl.float32)).to(tl.int64), ordered(top).to(tl.int64)
    while low < high:
        quarter = (high - low + 3) // 4
        o1 = tl.minimum(low + quarter, high)
        o2 = tl.minimum(low + 2 * quarter, high)
        o3 = tl.minimum(low + 3 * quarter, high)
        p1, p2 = from_ordered(o1.to(tl.int32)), from_ordered(o2.to(tl.int32))
        p3 = from_ordered(o3.to(tl.int32))
        s1, s2, s3 = _masses(x_row, origin, inverse, top, limit, p1, p2, p3, COUNT, V, BLOCK)
        new_low = tl.where(s3 >= wanted, o3, tl.where(s2 >= wanted, o2, tl.where(s1 >= wanted, o1, low)))
        new_high = tl.where(s1 < wanted, o1 - 1, tl.where(s2 < wanted, o2 - 1, tl.where(s3 < wanted, o3 - 1, high)))
        low, high = new_low, new_high
    return from_ordered(low.to(tl.int32))


@triton.jit
def _sigma_threshold(x_row, largest, n, V: tl.constexpr, BLOCK: tl.constexpr):
    """``largest - n sigma`` of untempered logits, sigma being the standard deviation of those that are not -inf."""
    deepest = tl.full([BLOCK], _LEAST, tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32)
        deepest = tl.maximum(deepest, tl.where(x >= _LEAST, 0.0 - x, _LEAST))
    half = 0.5 * largest + 0.5 * tl.max(deepest, 0)
    # Differences are measured in their own size, or the squares of large ones would overflow, of small ones vanish.
    exponent = tl.minimum(tl.maximum((half.to(tl.int32, bitcast=True) >> 23) - 127, -120), 120)
    scale = ((127 - exponent) << 23).to(tl.float32, bitcast=True)
    count, total = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32)
        count += tl.where(x >= _LEAST, 1.0, 0.0)
        total += tl.where(x >= _LEAST, x * scale - largest * scale, 0.0)
    possible = tl.sum(count, 0)
    mean = tl.sum(total, 0) / possible
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        x = tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32)
        distance = tl.where(x >= _LEAST, x * scale - largest * scale - mean, 0.0)
        squares += distance * distance
    return tl.where(half > 0.0, largest - n * tl.sqrt(tl.sum(squares, 0) / possible) / scale, largest)


@triton.jit
def stays(z, token, limit, last):
    """Whether a tempered logit stays: above the limit, or at it among the tokens up to ``last``."""
    return (z > limit) | ((z == limit) & (token <= last))


@triton.jit
def _mass_and_moment(x_row, origin, inverse, top, limit, V: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of ``exp(z - top)`` of the tempered logits that reach ``limit``, and of that times ``z - top``."""
    total, moment = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        distance = tl.where(z >= limit, z - top, 0.0)
        weight = tl.where(z >= limit, tl.exp(distance), 0.0)
        total += weight
        moment += weight * distance
    return tl.sum(total, 0), tl.sum(moment, 0)


@triton.jit
def _entropy(mass, moment):
    return tl.where(mass > 0.0, tl.log(tl.maximum(mass, _SMALLEST)) - moment / tl.maximum(mass, _SMALLEST), 0.0)


@triton.jit
def _equal_to(x_row, origin, inverse, value, wanted, V: tl.constexpr, BLOCK: tl.constexpr):
    """How many tempered logits are equal to ``value``, and the token of the ``wanted``-th of them, -1 for none."""
    count, place = tl.zeros((), tl.int32), tl.full((), -1, tl.int32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        equal = (z == value).to(tl.int32)
        number = count + tl.cumsum(equal, 0)
        place = tl.maximum(place, tl.max(tl.where((equal > 0) & (number == wanted), token, -1), 0))
        count += tl.sum(equal, 0)
    return count, place


@triton.jit
def _largest_up_to(x_row, origin, inverse, limit, V: tl.constexpr, BLOCK: tl.constexpr):
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        best = tl.maximum(best, tl.where(z <= limit, z, float("-inf")))
    return tl.max(best, 0)


@triton.jit
def _keep_entropy(x_row, origin, inverse, top, limit, alpha, V: tl.constexpr, BLOCK: tl.constexpr):
    """top-H: the smallest value that stays, and the last token that does of those that have it.

    Entropy grows with every less likely token, so the bound is found by bisection, and so is how many of the equal
    tokens at the bound stay.
    """
    mass, moment = _mass_and_moment(x_row, origin, inverse, top, limit, V, BLOCK)
    bound = alpha * _entropy(mass, moment)
    low, high = ordered(limit).to(tl.int64), ordered(top).to(tl.int64) + 1
    while low < high:
        middle = low + (high - low) // 2
        mass, moment = _mass_and_moment(x_row, origin, inverse, top, from_ordered(middle.to(tl.int32)), V, BLOCK)
        fits = _entropy(mass, moment) <= bound
        high = tl.where(fits, middle, high)
        low = tl.where(fits, low, middle + 1)
    value = from_ordered(low.to(tl.int32))
    mass, moment = _mass_and_moment(x_row, origin, inverse, top, value, V, BLOCK)
    below = _largest_up_to(x_row, origin, inverse, from_ordered((low - 1).to(tl.int32)), V, BLOCK)
    last = tl.full((), ANY_TOKEN, tl.int32)
    if below >= limit:
        value = below
        weight = tl.exp(below - top)
        ties, _ = _equal_to(x_row, origin, inverse, below, 0, V, BLOCK)
        fewest = tl.where(mass > 0.0, 0, 1)
        most = tl.where(weight > 0.0, ties, fewest)
        while fewest < most:
            middle = (fewest + most + 1) // 2
            more = middle.to(tl.float32) * weight
            fits = _entropy(mass + more, moment + more * (below - top)) <= bound
            fewest = tl.where(fits, middle, fewest)
            most = tl.where(fits, most, middle - 1)
        _, last = _equal_to(x_row, origin, inverse, below, fewest, V, BLOCK)
    return value, last


@triton.jit
def _mass_and_squares(x_row, origin, inverse, top, limit, last, V: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of ``exp(z - top)`` of the tempered logits that stay, and of its square."""
    total, squares = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        token = start + tl.arange(0, BLOCK)
        z = (tl.load(x_row + token, mask=token < V, other=float("-inf")).to(tl.float32) - origin) * inverse
        weight = tl.where(stays(z, token, limit, last), tl.exp(z - top), 0.0)
        total += weight
        squares += weight * weight
    return tl.sum(total, 0), tl.sum(squares, 0)


@triton.jit(do_not_specialize=["stride"], do_not_specialize_on_alignment=ROW_PARAMETERS)
def threshold_kernel(
    x_ptr, stride, tops_ptr, temperature_ptr, top_p_ptr, min_p_ptr, top_k_ptr, targets_ptr, sigma_ptr, p_less_ptr,
    top_h_ptr, near_ptr, thresholds_ptr, lasts_ptr, masses_ptr,
    V: tl.constexpr, BLOCK: tl.constexpr, SHAPED: tl.constexpr,
):  # fmt: skip
    """The smallest tempered logit that stays, and the last token that does of those that have it.

    With SHAPED for adaptive-p also the mass of what stays.
    """
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row)
    top_k, top_p, min_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(min_p_ptr + row)
    truncates = ((top_k > 0) & (top_k < V)) | (top_p < 1.0) | (min_p > 0.0)
    sigma, p_less, top_h, near = 0.0, 0.0, 0.0, -1.0
    tl.store(lasts_ptr + row, ANY_TOKEN)
    if SHAPED:
        sigma, p_less, near = tl.load(sigma_ptr + row), tl.load(p_less_ptr + row), tl.load(near_ptr + row)
        top_h = tl.load(top_h_ptr + row)
        top_h = tl.where(top_h < 1.0, top_h, 0.0)  # of all of the entropy everything stays
        truncates = truncates | (sigma > 0.0) | (p_less > 0.0) | (top_h > 0.0) | (near >= 0.0)
    if (temperature == 0.0) | (tl.load(targets_ptr + row) >= 0) | (not truncates):
        tl.store(thresholds_ptr + row, tl.full((), -3.4e38, tl.float32))
        return
    largest = tl.load(tops_ptr + row)
    origin, inverse = scale(largest, temperature)
    x_row = x_ptr + row * stride
    top = (largest - origin) * inverse
    threshold = tl.full((), -3.4e38, tl.float32)
    if sigma > 0.0:
        threshold = tl.maximum(threshold, (_sigma_threshold(x_row, largest, sigma, V, BLOCK) - origin) * inverse)
    if (top_k > 0) & (top_k < V):
        counted = _bisect(x_row, origin, inverse, top, threshold, top_k.to(tl.float32), True, V, BLOCK)
        threshold = tl.maximum(threshold, counted)
    if top_p < 1.0:
        total, _, _ = _masses(x_row, origin, inverse, top, threshold, threshold, top, top, False, V, BLOCK)
        wanted = top_p * total
        threshold = tl.maximum(threshold, _bisect(x_row, origin, inverse, top, threshold, wanted, False, V, BLOCK))
    if min_p > 0.0:
        threshold = tl.maximum(threshold, top + tl.log(min_p))
    last = tl.full((), ANY_TOKEN, tl.int32)
    if SHAPED:
        if p_less > 0.0:
            total, squares = _mass_and_squares(x_row, origin, inverse, top, threshold, last, V, BLOCK)
            threshold = tl.maximum(threshold, top + tl.log(squares / total))
        if top_h > 0.0:
            threshold, last = _keep_entropy(x_row, origin, inverse, top, threshold, top_h, V, BLOCK)
            tl.store(lasts_ptr + row, last)
        if near >= 0.0:
            total, squares = _mass_and_squares(x_row, origin, inverse, top, threshold, last, V, BLOCK)
            tl.store(masses_ptr + row, total)
    tl.store(thresholds_ptr + row, threshold)


@triton.jit
def near_score(weight, mass, near):
    """adaptive-p: the score of a token that has ``weight`` of ``mass``."""
    distance = tl.abs(weight / mass - near) * (1.0 / 0.3)
    return 5.0 - 10.0 * distance * distance / (1.0 + distance)
