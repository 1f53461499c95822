"""Votes by number, rank and confidence, and when they cannot change any more."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.self_certainty import sample_certainty, self_certainty
from ift_serve.decoding.votes import (
    Ballot,
    Tally,
    borda_weights,
    confidence_weights,
    is_settled,
    majority_weights,
)
from ift_serve.engine.protocol.generate import TokenStatistics

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


def test_self_certainty_is_the_divergence_from_uniform() -> None:
    logits = torch.randn(7, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    log_probs = torch.log_softmax(logits, -1)
    uniform = torch.full_like(log_probs, 1 / 50)
    expected = torch.nn.functional.kl_div(log_probs, uniform, reduction="sum").item() / 7
    assert self_certainty(log_probs.mean(-1).tolist(), 50) == pytest.approx(expected, abs=1e-12)
    assert self_certainty([math.log(1 / 50)], 50) == pytest.approx(0.0, abs=1e-12)


def test_a_samples_certainty_is_over_its_drawn_tokens() -> None:
    drawn = [TokenStatistics(-1.0, 0.5, 0.2, 1.0, top, 1.0) for top in (-4.0, -6.0)]
    forced = TokenStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, forced=True)
    assert sample_certainty([*drawn, forced]) == 5.0 and sample_certainty([forced]) == 0.0
