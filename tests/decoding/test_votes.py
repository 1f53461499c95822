"""Votes by number, rank and confidence, and when they cannot change any more."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.votes import (
    Ballot,
    Tally,
    borda_weights,
    confidence_weights,
    fewest_to_settle,
    is_settled,
    majority_weights,
)

BALLOTS = [Ballot("a", 3.0), Ballot("b", 9.0), Ballot("a", 1.0), Ballot("b", 5.0), Ballot("a", 2.0)]


def test_the_majority_counts_heads() -> None:
    tally = Tally(BALLOTS, majority_weights(BALLOTS))
    assert tally.weights == {"a": 3.0, "b": 2.0} and tally.leader == "a"
    assert tally.lead == (3.0, 2.0) and tally.share == 0.6 and tally.effective_counts() == (3.0, 2.0)


def test_borda_weighs_by_rank() -> None:
    """(N - r + 1)^p: of five samples the most certain has 5^p, the least certain 1."""
    assert borda_weights(BALLOTS, 1.0) == [3.0, 5.0, 1.0, 4.0, 2.0]
    assert borda_weights(BALLOTS, 0.3) == pytest.approx([3**0.3, 5**0.3, 1.0, 4**0.3, 2**0.3])
    assert Tally(BALLOTS, borda_weights(BALLOTS, 1.0)).leader == "b"


def test_borda_without_power_is_the_majority_and_with_much_the_most_certain() -> None:
    assert borda_weights(BALLOTS, 0.0) == majority_weights(BALLOTS)
    lone = [Ballot("a", 1.0), Ballot("a", 2.0), Ballot("b", 3.0)]
    assert Tally(lone, borda_weights(lone, 50.0)).leader == "b"


def test_equals_are_decided_by_who_came_first() -> None:
    ballots = [Ballot("b", 1.0), Ballot("a", 1.0)]
    assert Tally(ballots, majority_weights(ballots)).leader == "b"
    assert borda_weights(ballots, 1.0) == [2.0, 1.0]


def test_confidence_weighs_by_itself_and_never_against() -> None:
    assert confidence_weights([Ballot("a", 2.5), Ballot("b", -1.0)]) == [2.5, 0.0]


def test_effective_counts_sum_to_the_ballots() -> None:
    tally = Tally(BALLOTS, borda_weights(BALLOTS, 1.2))
    assert sum(tally.effective_counts()) == pytest.approx(5.0)


def test_nobody_votes_for_nothing() -> None:
    tally = Tally([], [])
    assert tally.leader is None and tally.share == 0.0 and tally.effective_counts() == (0.0, 0.0)
    assert not is_settled(tally, 3) and is_settled(tally, 0)


@given(st.lists(st.sampled_from("abc"), max_size=6), st.integers(0, 9))
def test_the_fewest_that_may_settle_are_the_first_with_which_it_is_settled(answers: list[str], left: int) -> None:
    ballots = [Ballot(answer) for answer in answers]
    leader = Tally(ballots, majority_weights(ballots)).leader or "a"

    def settled_with(more: int) -> bool:
        after = [*ballots, *[Ballot(leader)] * more]
        return is_settled(Tally(after, majority_weights(after)), left - more)

    fewest = fewest_to_settle(Tally(ballots, majority_weights(ballots)), left)
    assert settled_with(fewest) and not any(settled_with(more) for more in range(fewest))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), min_size=1, max_size=4),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.3, 1.0, 1.2]),
)
def test_settled_is_what_no_further_samples_change(drawn: list[tuple[str, int]], left: int, power: float) -> None:
    """Against every answer and rank that the samples that are left could have."""
    ballots = [Ballot(answer, certainty) for answer, certainty in drawn]
    before = Tally(ballots, borda_weights(ballots, power))
    endings = [(answer, place) for answer in ["a", "b", "c", None] for place in (-1.0, 0.5, 1.5, 2.5, 3.5, 4.5, 6.0)]
    kept = True
    for more in itertools.product(endings, repeat=left):
        after = ballots + [Ballot(answer, place) for answer, place in more if answer is not None]
        tally = Tally(after, borda_weights(after, power))
        rivals = [w for a, w in tally.weights.items() if a != before.leader]
        kept &= tally.weights[before.leader or ""] > max(rivals, default=0.0) + 1e-9
    if is_settled(before, left, power):
        assert kept or left == 0
    elif before.lead[0] - before.lead[1] > 1e-9:
        assert not kept, "it could have been known"
