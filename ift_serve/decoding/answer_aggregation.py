"""Aggregation of paths with an answer and a confidence each into one answer (arXiv 2402.10200, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnsweredPath:
    """A path's answer as it is compared with others, and the confidence in it."""

    answer: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """``path``: the index of the path to give. ``confidence``: its own, or the sum over the paths with its answer."""

    path: int
    confidence: float


def greatest(paths: Sequence[AnsweredPath]) -> Chosen | None:
    """The path of greatest confidence; of equal ones the first. None where there is no path."""
    if not paths:
        return None
    best = max(range(len(paths)), key=lambda index: (paths[index].confidence, -index))
    return Chosen(best, paths[best].confidence)


def greatest_sum(paths: Sequence[AnsweredPath]) -> Chosen | None:
    """Of the answer whose paths' confidences add up to most, the path of greatest confidence.

    Of equal answers the one that came first wins. None where there is no path.
    """
    if not paths:
        return None
    sums = answer_sums(paths)
    answer = max(sums, key=lambda key: sums[key])
    best = greatest([path if path.answer == answer else AnsweredPath(path.answer, -1.0) for path in paths])
    assert best is not None
    return Chosen(best.path, sums[answer])


def answer_sums(paths: Sequence[AnsweredPath]) -> dict[str, float]:
    """The sum of the confidences of each answer, in the order in which answers first came."""
    sums: dict[str, float] = {}
    for path in paths:
        sums[path.answer] = sums.get(path.answer, 0.0) + path.confidence
    return sums
