"""Whether a record is kept, flagged or rejected by what the filters found in it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ift_training.data.generation.record import Reason, Status
from ift_training.data.quality.filter import Finding, severity
from ift_training.data.quality.filters import GOOD
from ift_training.data.quality.recipe import Thresholds

FLAGGED, REJECTED = 0.5, 1.0
"""Severities from which on a record is flagged, and rejected."""
SOFT = frozenset({"alignment", "coherence", "references", "repetition"})
"""Filters whose flag is a matter of degree: balancing may take it back. That of the others is for a person."""


@dataclass(frozen=True, slots=True)
class Decision:
    """severity: how much speaks against the record: 0 nothing, from 0.5 on it is flagged, from 1 on rejected.

    reasons: what flags or rejects it, the worst first. is_soft: whether its reasons are all a matter of degree.
    """

    severity: float
    reasons: tuple[Reason, ...]
    is_soft: bool

    @property
    def status(self) -> Status:
        """Before balancing."""
        return status_of(self.severity)


def status_of(found: float) -> Status:
    """The status of a severity."""
    return "rejected" if found >= REJECTED else "flagged" if found >= FLAGGED else "kept"


def decide(findings: Mapping[str, Finding], thresholds: Mapping[str, Thresholds]) -> Decision:
    """The decision of all filters that have thresholds: the worst of them counts.

    A filter that could not judge the record (a question that was not answered) flags it.
    """
    worst, reasons = 0.0, list[tuple[float, Reason]]()
    for name, found in findings.items():
        if name not in thresholds:
            continue
        if found.score is None:
            if found.reason:
                reasons.append((FLAGGED, Reason(name, found.reason)))
            continue
        own = relative_severity(found.score, thresholds[name], GOOD[name])
        worst = max(worst, own)
        if own >= FLAGGED:
            limits = thresholds[name]
            limit = limits.reject if own >= REJECTED else limits.flag
            reasons.append((own, Reason(name, found.reason, found.score, limit)))
    worst = max([worst, *(own for own, _ in reasons)])
    reasons.sort(key=lambda one: (-one[0], one[1].name))
    return Decision(worst, tuple(reason for _, reason in reasons), all(r.name in SOFT for _, r in reasons))


def relative_severity(score: float, limits: Thresholds, good: str) -> float:
    """Where a score lies: 0 at the best, 0.5 at the threshold for flags, 1 at the one for rejections and beyond.

    Linear between them, so that scores of different filters can be compared.
    """
    own = severity(score, good)
    reject = None if limits.reject is None else severity(limits.reject, good)
    flag = None if limits.flag is None else severity(limits.flag, good)
    if reject is not None and own >= reject:
        return REJECTED
    if flag is None:
        # Nothing is flagged: what is not rejected is kept, however close.
        return 0.0 if reject is None else min(own / reject * FLAGGED, FLAGGED - 1e-6)
    if own >= flag:
        far = 1.0 if reject is None else reject
        # Without a threshold for rejections the worst is flagged and no more.
        return min(FLAGGED + (REJECTED - FLAGGED) * (own - flag) / max(far - flag, 1e-9), REJECTED - 1e-6)
    return FLAGGED * own / flag
