"""How well each filter finds the faults that were planted for it: precision and recall at every threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ift_training.data.quality.calibration.sample import FAULTS, Half, Labelled
from ift_training.data.quality.filter import Finding, severity


@dataclass(frozen=True, slots=True)
class Point:
    """At one threshold. found: faults of the filter's own kinds that are as bad or worse; wrong: good pairs that are."""

    threshold: float
    found: int
    wrong: int
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A filter's score of a pair, None where it has none. good: no fault at all; own: a fault that it is to find."""

    score: float | None
    good: bool
    own: bool
    fault: str
    half: Half


def judged(name: str, sample: Sequence[Labelled], findings: Sequence[Mapping[str, Finding]]) -> list[Judged]:
    """What a filter says of the pairs that are good or have a fault of its kinds.

    Pairs with other faults are left out: an answer to another question may well contradict its text too.
    """
    return [
        Judged(found[name].score, not one.fault, name in FAULTS.get(one.fault, ()), one.fault, one.half)
        for one, found in zip(sample, findings, strict=True)
        if name in found and (not one.fault or name in FAULTS[one.fault])
    ]


def point(rows: Sequence[Judged], threshold: float, good: str) -> Point:
    """Precision and recall where all scores as bad as the threshold are taken for faults."""
    bad = [row for row in rows if row.score is not None and is_bad(row.score, threshold, good)]
    found = sum(row.own for row in bad)
    wrong = len(bad) - found
    own = sum(row.own for row in rows)
    return Point(threshold, found, wrong, found / len(bad) if bad else 1.0, found / own if own else 0.0)


def is_bad(score: float, threshold: float, good: str) -> bool:
    """Whether a score is at the threshold or on the bad side of it."""
    return score <= threshold if good == "high" else score >= threshold


def curve(rows: Sequence[Judged], good: str) -> list[Point]:
    """A point for each score that there is, from the strictest threshold to the one that takes everything."""
    scores = sorted({row.score for row in rows if row.score is not None}, key=lambda s: -severity(s, good))
    return [point(rows, score, good) for score in scores]


def best(rows: Sequence[Judged], good: str) -> Point | None:
    """The point of the largest F1, the strictest of equals; None without scores."""
    return max(curve(rows, good), key=lambda p: p.f1, default=None)


def recall_by_fault(rows: Sequence[Judged], threshold: float, good: str) -> dict[str, tuple[int, int]]:
    """By kind of fault: how many are found, of how many."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.own:
            hit, all_ = found.get(row.fault, (0, 0))
            bad = row.score is not None and is_bad(row.score, threshold, good)
            found[row.fault] = (hit + bad, all_ + 1)
    return found
