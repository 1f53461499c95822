"""Beta posterior: the probability that the leading answer would still lead after any number of samples."""

from __future__ import annotations

import math

_TINY = 1e-300
_PRECISION = 1e-15
_STEPS = 10_000


def leader_probability(first: float, second: float) -> float:
    """``P(p1 > p2)`` for the two leading answers with these votes (Adaptive-Consistency, arXiv 2305.11860).

    With a uniform prior the share of the first of the two is ``Beta(first + 1, second + 1)``, and it leads where that
    share is above one half: ``1 - I_{1/2}(first + 1, second + 1) = I_{1/2}(second + 1, first + 1)``. Votes need not
    be whole. Sampling may stop once this is at least .95.
    """
    if first < 0 or second < 0:
        raise ValueError(f"votes are negative: {first}, {second}")
    return regularized_incomplete_beta(0.5, second + 1.0, first + 1.0)


def fewest_to_lead(first: float, second: float, confidence: float, left: int) -> int:
    """The fewest of ``left`` more votes with which the leader may lead by ``confidence``: if all of them are for it."""
    return next((more for more in range(left) if leader_probability(first + more, second) >= confidence), left)


def regularized_incomplete_beta(x: float, a: float, b: float) -> float:
    """``I_x(a, b)`` for 0 <= x <= 1 and positive a, b, to about 1e-14 for arguments up to some thousands.

    By the continued fraction DLMF 8.17.22, evaluated by Lentz's method, where it converges fast; by symmetry elsewhere.
    """
    if not 0.0 <= x <= 1.0 or a <= 0.0 or b <= 0.0:
        raise ValueError(f"outside the domain: x {x}, a {a}, b {b}")
    if x in (0.0, 1.0):
        return x
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - regularized_incomplete_beta(1.0 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """``1 + d_1/(1 + d_2/(1 + ...))``."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        half = step // 2
        if step % 2:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        denominator = 1.0 / _not_zero(1.0 + term * denominator)
        numerator = _not_zero(1.0 + term / numerator)
        change = numerator * denominator
        value *= change
        if abs(change - 1.0) < _PRECISION:
            return value
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
