"""The posterior probability that a leader leads, against exact fractions and against SciPy."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.beta_posterior import fewest_to_lead, leader_probability, regularized_incomplete_beta


def exact(x: Fraction, a: int, b: int) -> Fraction:
    """``I_x(a, b)`` of whole a and b: the probability of at least a successes in a + b - 1 trials."""
    trials = a + b - 1
    return sum((comb(trials, j) * x**j * (1 - x) ** (trials - j) for j in range(a, trials + 1)), Fraction(0))


@given(st.integers(1, 99), st.integers(1, 60), st.integers(1, 60))
def test_whole_arguments_agree_with_the_binomial_sum(percent: int, a: int, b: int) -> None:
    x = Fraction(percent, 100)
    assert regularized_incomplete_beta(float(x), a, b) == pytest.approx(float(exact(x, a, b)), rel=1e-11, abs=1e-15)


@given(st.integers(0, 64), st.integers(0, 64))
def test_the_leaders_probability_is_exact(first: int, second: int) -> None:
    expected = 1 - exact(Fraction(1, 2), first + 1, second + 1)
    assert leader_probability(first, second) == pytest.approx(float(expected), rel=1e-11, abs=1e-15)


def test_when_sampling_stops_at_95_percent() -> None:
    """1 - 2^-(v+1) where all agree: four samples are enough, three are not.

    Against two others: 7 give 1 - (1 + 10 + 45) / 2^10 = .945, 8 give 1 - (1 + 11 + 55) / 2^11 = .967.
    """
    assert leader_probability(3, 0) == pytest.approx(1 - 2**-4)
    assert leader_probability(4, 0) == pytest.approx(1 - 2**-5)
    assert leader_probability(7, 2) == pytest.approx(1 - 56 / 1024)
    assert leader_probability(8, 2) == pytest.approx(1 - 67 / 2048)
    stops = {second: next(v for v in range(100) if leader_probability(v, second) >= 0.95) for second in range(4)}
    assert stops == {0: 4, 1: 6, 2: 8, 3: 9}
    assert leader_probability(0, 0) == pytest.approx(0.5)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 12))
def test_the_fewest_that_may_lead_are_the_first_with_which_it_leads(first: int, second: int, left: int) -> None:
    fewest = fewest_to_lead(first, second, 0.95, left)
    assert fewest == left or leader_probability(first + fewest, second) >= 0.95
    assert all(leader_probability(first + more, second) < 0.95 for more in range(fewest))


@given(st.floats(0.01, 0.99), st.floats(0.05, 200), st.floats(0.05, 200))
def test_any_arguments_agree_with_scipy(x: float, a: float, b: float) -> None:
    special = pytest.importorskip("scipy.special", reason="SciPy, the independent reference, is not installed")
    assert regularized_incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-10, abs=1e-14)


@given(st.floats(0, 50), st.floats(0, 50))
def test_weights_need_not_be_whole(first: float, second: float) -> None:
    assert leader_probability(first, second) + leader_probability(second, first) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("x", "a", "b"), [(-0.1, 1, 1), (1.1, 1, 1), (0.5, 0, 1), (0.5, 1, -1)])
def test_outside_its_domain_it_is_refused(x: float, a: float, b: float) -> None:
    with pytest.raises(ValueError, match="outside the domain"):
        regularized_incomplete_beta(x, a, b)


def test_ends_and_negative_votes() -> None:
    assert regularized_incomplete_beta(0.0, 2, 3) == 0.0 and regularized_incomplete_beta(1.0, 2, 3) == 1.0
    with pytest.raises(ValueError, match="negative"):
        leader_probability(-1, 0)
