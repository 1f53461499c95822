"""Confidence of a span of generated tokens, from the statistics of their raw distributions."""

from __future__ import annotations

from collections.abc import Sequence

from ift_serve.engine.protocol.generate import TokenStatistics


def margin(statistics: TokenStatistics) -> float:
    """The probability of the most likely token minus that of the second, whichever was taken; 0 to 1."""
    return statistics.p1 - statistics.p2


def answer_confidence(statistics: Sequence[TokenStatistics], answer: range) -> float | None:
    """The mean margin over the tokens of an answer (Wang and Zhou 2024, arXiv 2402.10200, equation 1).

    ``statistics[t]`` is that of the distribution from which token ``t`` of the path was taken, so that a path's first
    token, which was chosen and not the most likely one, has the margin of the distribution that it was chosen from.
    Tokens that were forced have none and do not count; None where no other is left.
    """
    margins = [margin(statistics[index]) for index in answer if not statistics[index].forced]
    return sum(margins) / len(margins) if margins else None


def is_uncertain(statistics: TokenStatistics, below: float) -> bool:
    """Whether a position is one to branch at: its margin is below ``below``."""
    return not statistics.forced and margin(statistics) < below


def mean_log_prob(statistics: Sequence[TokenStatistics]) -> float | None:
    """The mean log-probability of the drawn tokens, in nats; None where none was drawn."""
    drawn = [one.log_prob for one in statistics if not one.forced]
    return sum(drawn) / len(drawn) if drawn else None
