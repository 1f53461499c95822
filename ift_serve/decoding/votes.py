"""The votes of samples for their answers: one each, by rank, or by confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ballot:
    """The answer of one sample, as it is compared with others, and how certain the sample was (higher: more)."""

    answer: str
    certainty: float = 0.0


class Tally:
    """The weight of each answer, in the order in which answers first came."""

    def __init__(self, ballots: Sequence[Ballot], weights: Sequence[float]) -> None:
        self.ballots = len(ballots)
        self.weights: dict[str, float] = {}
        for ballot, weight in zip(ballots, weights, strict=True):
            self.weights[ballot.answer] = self.weights.get(ballot.answer, 0.0) + weight

    @property
    def total(self) -> float:
        """The weight of all answers."""
        return sum(self.weights.values())

    @property
    def leader(self) -> str | None:
        """The answer of most weight; of equal ones the first. None where nobody voted."""
        return max(self.weights, key=lambda answer: self.weights[answer], default=None)

    @property
    def lead(self) -> tuple[float, float]:
        """The weight of the leader and of the next answer; 0 for one that there is not."""
        first, second, *_ = [*sorted(self.weights.values(), reverse=True), 0.0, 0.0]
        return first, second

    @property
    def share(self) -> float:
        """The leader's share of the weight, 0 to 1."""
        return self.lead[0] / self.total if self.total > 0 else 0.0

    def effective_counts(self) -> tuple[float, float]:
        """The lead in ballots: as weights that sum to the number of ballots."""
        first, second = self.lead
        scale = self.ballots / self.total if self.total > 0 else 0.0
        return first * scale, second * scale


def majority_weights(ballots: Sequence[Ballot]) -> list[float]:
    """One vote each (self-consistency, arXiv 2203.11171)."""
    return [1.0] * len(ballots)


def borda_weights(ballots: Sequence[Ballot], power: float) -> list[float]:
    """``(N - r + 1) ** power`` for the sample of rank ``r`` by certainty, 1 the most certain (arXiv 2502.18581, eq. 8).

    ``power`` 0 is the majority; the larger it is, the more the most certain sample decides. Of equally certain samples
    the first ranks higher.
    """
    order = sorted(range(len(ballots)), key=lambda index: (-ballots[index].certainty, index))
    weights = [0.0] * len(ballots)
    for rank, index in enumerate(order, 1):
        weights[index] = math.pow(len(ballots) - rank + 1, power)
    return weights


def confidence_weights(ballots: Sequence[Ballot]) -> list[float]:
    """The sample's confidence itself (DeepConf, arXiv 2508.15260, equation 7). Not negative."""
    return [max(0.0, ballot.certainty) for ballot in ballots]


def fewest_to_settle(tally: Tally, left: int) -> int:
    """The fewest of ``left`` more samples that may settle a majority: if all of them agree with the leader."""
    first, second = tally.lead
    return next((more for more in range(left) if first + more - second > left - more), left)


def is_settled(tally: Tally, left: int, power: float = 0.0) -> bool:
    """Whether ``left`` more samples cannot change which answer has most weight, whatever they say.

    ``power``: that of ``borda_weights``; 0 for the majority. A sample's weight is its place from the bottom to that
    power, so at worst all samples that are left rank above those that there are, which keep their weights, and vote
    for the answer that is second. A tie is not settled, unless nothing is left.
    """
    if left <= 0:
        return True
    if not tally.ballots:
        return False
    first, second = tally.lead
    return first - second > sum(math.pow(tally.ballots + place, power) for place in range(1, left + 1))
