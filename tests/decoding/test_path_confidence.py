"""The confidence of a path, and which path it chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.answer_aggregation import AnsweredPath, Chosen, greatest, greatest_sum
from ift_serve.decoding.path_confidence import answer_confidence, is_uncertain, mean_log_prob
from ift_serve.engine.protocol.generate import TokenStatistics


def token(p1: float, p2: float, log_prob: float = -1.0, forced: bool = False) -> TokenStatistics:
    return TokenStatistics(log_prob, p1, p2, 1.0, -2.0, 1.0, forced)


PATH = [token(0.5, 0.3), token(0.9, 0.05), token(0.6, 0.4), token(0.99, 0.01)]


def test_the_mean_margin_over_the_answers_tokens_only() -> None:
    assert answer_confidence(PATH, range(2, 4)) == pytest.approx((0.2 + 0.98) / 2, abs=1e-12)


def test_the_branch_token_counts_where_it_is_part_of_the_answer() -> None:
    assert answer_confidence(PATH, range(2)) == pytest.approx((0.2 + 0.85) / 2, abs=1e-12)
    assert answer_confidence(PATH, range(1)) == pytest.approx(0.2, abs=1e-12)


def test_each_token_has_its_own_place() -> None:
    """A shift by one anywhere would give another token's margin."""
    for index, margin in enumerate([0.2, 0.85, 0.2, 0.98]):
        assert answer_confidence(PATH, range(index, index + 1)) == pytest.approx(margin, abs=1e-12)


def test_forced_tokens_have_no_confidence() -> None:
    path = [token(0.9, 0.1), token(0.0, 0.0, forced=True)]
    assert answer_confidence(path, range(2)) == pytest.approx(0.8)
    assert answer_confidence(path, range(1, 2)) is None
    assert mean_log_prob(path) == -1.0 and mean_log_prob(path[1:]) is None


def test_a_position_is_uncertain_below_the_margin() -> None:
    assert is_uncertain(token(0.5, 0.3), 0.21) and not is_uncertain(token(0.5, 0.25), 0.25)
    assert not is_uncertain(token(0.0, 0.0, forced=True), 0.5)


def test_the_maximum_and_the_sum_may_choose_differently() -> None:
    paths = [AnsweredPath("5", 0.9), AnsweredPath("8", 0.6), AnsweredPath("8", 0.7), AnsweredPath("5", 0.1)]
    assert greatest(paths) == Chosen(0, 0.9)
    summed = greatest_sum(paths)
    assert summed is not None and summed.path == 2 and summed.confidence == pytest.approx(1.3)


def test_no_path_and_equal_paths() -> None:
    assert greatest([]) is None and greatest_sum([]) is None
    equal = [AnsweredPath("a", 0.5), AnsweredPath("b", 0.5)]
    assert greatest(equal) == Chosen(0, 0.5) and greatest_sum(equal) == Chosen(0, 0.5)
    assert greatest_sum([AnsweredPath("a", 0.0)]) == Chosen(0, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), min_size=1, max_size=8))
def test_the_sum_chooses_a_best_path_of_a_best_answer(drawn: list[tuple[str, int]]) -> None:
    paths = [AnsweredPath(answer, eighths / 8) for answer, eighths in drawn]
    chosen = greatest_sum(paths)
    assert chosen is not None
    sums = {a: sum(p.confidence for p in paths if p.answer == a) for a in "abc"}
    answer = paths[chosen.path].answer
    assert chosen.confidence == sums[answer] == max(sums.values())
    assert paths[chosen.path].confidence == max(p.confidence for p in paths if p.answer == answer)
