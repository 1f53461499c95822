"""Acceptance that does not depend on how hard a record is: rates of levels, brought close to the rate of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ift_training.data.quality.decisions import FLAGGED, REJECTED

Levels = NDArray[np.int8]
"""Of each record, 0 where there is none."""
Severities = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LevelRate:
    """Of one level of complexity. kept: before and after balancing; moved: kept ones flagged less flagged ones kept."""

    level: int
    records: int
    kept_before: int
    kept_after: int

    @property
    def before(self) -> float:
        """Share that is kept by the thresholds alone."""
        return self.kept_before / self.records if self.records else 0.0

    @property
    def after(self) -> float:
        """Share that is kept in the end."""
        return self.kept_after / self.records if self.records else 0.0


def balanced(levels: Levels, severities: Severities, soft: Flags, slack: float) -> NDArray[np.bool_]:
    """Which records are kept when every level's rate is within ``slack`` of the rate of all, to the next record.

    In a level that is kept too often, the records closest to a threshold are not kept; in one that is kept too seldom,
    flagged ones are, those closest to the threshold first, if their reasons are all a matter of degree (``soft``).
    Nothing rejected is ever kept. Of equals, the earlier record is kept.
    """
    kept = severities < FLAGGED
    judged = levels > 0
    if not judged.any():
        return kept
    rate = float(kept[judged].mean())
    for level in np.unique(levels[judged]):
        own = np.flatnonzero(levels == level)
        wanted = int(kept[own].sum())
        most, least = int(np.ceil((rate + slack) * len(own))), int(np.floor((rate - slack) * len(own)))
        best_first = own[np.lexsort((own, severities[own]))]
        if wanted > most:
            drop = [place for place in best_first[::-1] if kept[place]][: wanted - most]
            kept[drop] = False
        elif wanted < least:
            near = [p for p in best_first if not kept[p] and soft[p] and severities[p] < REJECTED]
            kept[near[: least - wanted]] = True
    return kept


def rates(levels: Levels, before: Flags, after: Flags) -> list[LevelRate]:
    """The rate of each level that has records."""
    return [
        LevelRate(
            int(level), int(own.sum()), int(before[own].sum()), int(after[own].sum())
        )
        for level in np.unique(levels[levels > 0])
        for own in [levels == level]
    ]  # fmt: skip


def plain(found: LevelRate) -> Mapping[str, float]:
    """Plain values."""
    return {
        "level": found.level, "records": found.records, "kept_before": found.kept_before,
        "kept_after": found.kept_after, "before": found.before, "after": found.after,
    }  # fmt: skip
