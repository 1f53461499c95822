"""Intervals and p-values of the benchmarks against scipy, and against cases that can be counted."""

from __future__ import annotations

import random

import pytest
from intervals import bootstrap, mcnemar, wilson


@pytest.mark.parametrize(("passed", "total"), [(0, 7), (7, 7), (1, 3), (40, 80), (313, 1319)])
def test_the_interval_of_a_share_is_scipys(passed: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(passed, total).proportion_ci(0.95, method="wilson")
    assert wilson(passed, total) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_says_nothing_of_a_share() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_p_of_pairs_is_the_exact_binomial_test_of_those_that_differ(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(seed)
    first, second = ([rng.random() < share for _ in range(60)] for share in (0.4, 0.6))
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    assert mcnemar(first, second) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_pairs_that_agree_are_no_evidence() -> None:
    assert mcnemar([True, False], [True, False]) == 1.0


def test_six_pairs_that_all_change_one_way() -> None:
    assert mcnemar([False] * 6, [True] * 6) == pytest.approx(2 / 2**6)


def test_the_bootstrap_of_a_constant_difference_is_that_difference() -> None:
    assert bootstrap([0.0, 1.0, 2.0], [0.5, 1.5, 2.5]) == (0.5, 0.5)


def test_the_bootstrap_has_the_width_of_the_standard_error() -> None:
    rng = random.Random(1)
    second = [rng.gauss(0.3, 1.0) for _ in range(400)]
    low, high = bootstrap([0.0] * 400, second)
    mean = sum(second) / 400
    assert low == pytest.approx(mean - 1.96 / 20, abs=0.02) and high == pytest.approx(mean + 1.96 / 20, abs=0.02)
