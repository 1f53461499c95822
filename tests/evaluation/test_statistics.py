"""Scores, intervals and comparisons against independent calculations."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ift_serve.evaluation.comparison import benjamini_hochberg, bootstrap, compare, compare_families, mcnemar
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.scores import coverage, scores, wilson
from ift_serve.evaluation.tasks.task import ConstraintVerdict


def _row(model: str, key: str, *passed: bool, repeat: int = 0, error: str = "") -> Row:
    verdicts = {"strict": [ConstraintVerdict(f"f{i}", p) for i, p in enumerate(passed)]} if not error else {}
    return Row(model, "t", key, repeat, "prompt", "answer", error=error, verdicts=verdicts)


@pytest.mark.parametrize(("share", "count"), [(0.0, 12), (0.3, 40), (0.57, 541), (1.0, 7)])
def test_the_interval_is_scipys(share: float, count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
    exact = round(share * count) / count
    assert wilson(exact, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (9, 2), (40, 61), (800, 700)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = 1.0 if gained + lost == 0 else stats.binomtest(gained, gained + lost, 0.5).pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-6)


def test_failures_are_in_no_score_and_counted_apart() -> None:
    rows = [_row("m", "a", True), _row("m", "b", False), _row("m", "c", error="UNAVAILABLE: gone")]
    (prompt,) = [s for s in scores(rows) if s.level == "prompt"]
    (covered,) = coverage(rows)
    assert prompt.value == 0.5 and prompt.prompts == 2
    assert (covered.asked, covered.answered, covered.share) == (3, 2, 2 / 3)


def test_prompt_level_needs_every_constraint_and_families_count_their_own() -> None:
    rows = [_row("m", "a", True, False), _row("m", "b", True, True)]
    found = {(s.level, s.family): s.value for s in scores(rows)}
    assert found["prompt", "all"] == 0.5 and found["constraint", "all"] == 0.75
    assert found["family", "f0"] == 1.0 and found["family", "f1"] == 0.5


def test_repeats_do_not_narrow_the_interval() -> None:
    once = [_row("m", str(i), i % 2 == 0) for i in range(20)]
    thrice = [_row("m", str(i), i % 2 == 0, repeat=r) for i in range(20) for r in range(3)]
    (a,) = [s for s in scores(once) if s.level == "prompt"]
    (b,) = [s for s in scores(thrice) if s.level == "prompt"]
    assert (a.low, a.high) == (b.low, b.high) and b.samples == 60


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.choice([-1.0, 0.0, 1.0], size=120, p=[0.1, 0.7, 0.2]) for _ in range(60)]
    covered = sum(low <= 0.1 <= high for low, high in (bootstrap(d, 1) for d in drawn))
    assert 52 <= covered <= 60


def test_a_comparison_is_over_the_prompts_that_both_answered() -> None:
    rows = [_row("a", str(i), i < 4) for i in range(10)] + [_row("b", str(i), i < 9) for i in range(9)]
    (found,) = compare(rows, "a", "b")
    assert (found.prompts, found.left_out, found.gained, found.lost) == (9, 1, 5, 0)
    assert found.difference == pytest.approx(5 / 9) and found.p_value == pytest.approx(2 * 0.5**5)
    assert found.low <= found.difference <= found.high


def test_equal_models_differ_by_nothing_and_the_smallest_effect_is_told() -> None:
    rows = [_row(m, str(i), i % 3 == 0) for m in ("a", "b") for i in range(300)]
    (found,) = compare(rows, "a", "b")
    assert (found.difference, found.p_value, found.is_significant) == (0.0, 1.0, False)
    assert 0 < found.smallest < 0.02


def test_the_smallest_effect_is_shown_in_four_of_five_cases() -> None:
    rng = random.Random(1)
    shown = 0
    for _ in range(100):
        kinds = rng.choices(["gain", "loss", "same"], weights=[0.176, 0.06, 0.764], k=200)
        pairs = {"gain": (False, True), "loss": (True, False), "same": (True, True)}
        gained, lost = kinds.count("gain"), kinds.count("loss")
        values = np.array([pairs[k][1] - float(pairs[k][0]) for k in kinds])
        shown += abs(values.mean()) > 1.96 * values.std(ddof=1) / 200**0.5
        assert gained + lost
    smallest = (1.959964 + 0.841621) * (0.236 - 0.116**2) ** 0.5 / 200**0.5
    assert smallest == pytest.approx(0.0935, abs=0.002) and shown >= 80


@pytest.mark.parametrize("p_values", [[], [0.03], [0.01, 0.04, 0.03, 0.5, 0.02], [1.0, 1.0], [1e-9, 0.9, 1e-9]])
def test_p_values_are_corrected_as_scipy_does(p_values: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = list(stats.false_discovery_control(p_values)) if p_values else []
    assert benjamini_hochberg(p_values) == pytest.approx(expected)


def test_the_bootstrap_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    drawn = np.random.default_rng(5).choice([-1.0, 0.0, 0.5, 1.0], size=300, p=[0.1, 0.5, 0.2, 0.2])
    expected = stats.bootstrap((drawn,), np.mean, n_resamples=10_000, method="percentile", rng=7).confidence_interval
    assert bootstrap(drawn, 0) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_families_are_compared_on_the_prompts_that_hold_them_to_it() -> None:
    rows = [_row(m, str(i), m == "b" or i < 3, i % 2 == 0) for m in ("a", "b") for i in range(20)]
    better, same = compare_families(rows, "a", "b")
    assert (better.family, better.difference, better.gained, better.lost) == ("f0", 17 / 20, 17, 0)
    assert better.p_value == pytest.approx(2 * 0.5**17) and better.q_value == pytest.approx(2 * better.p_value)
    assert better.is_significant and (same.family, same.difference, same.q_value) == ("f1", 0.0, 1.0)


def test_a_family_that_only_stands_out_among_many_is_not_called_different() -> None:
    rows = [
        Row(m, "t", str(i), 0, "p", "a", verdicts={"strict": [ConstraintVerdict(f"f{i // 8}", m == "b" and i < 6)]})
        for m in ("a", "b") for i in range(80)
    ]  # fmt: skip
    found = compare_families(rows, "a", "b")
    assert found[0].p_value < 0.05 < found[0].q_value and not any(one.is_significant for one in found)
