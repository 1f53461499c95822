"""Selection of the best evaluated weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

METRIC, LOSS = "eval_score", "eval_loss"


class BestWeights:
    """The best evaluation so far: by score, equal scores by validation loss, equal losses by the earlier step.

    Without ``by_score`` the validation loss alone decides. ``waited`` counts the evaluations since the best one.
    """

    def __init__(self, *, by_score: bool) -> None:
        self.by_score = by_score
        self.step: int | None = None
        self.waited = 0
        self._rank: tuple[float, float] | None = None

    def consider(self, metrics: Mapping[str, Any], step: int) -> bool:
        """Whether this evaluation is the best so far. A loss that is no number is never the best."""
        rank = (float(metrics[METRIC]) if self.by_score else 0.0, -float(metrics[LOSS]))
        if not any(map(math.isnan, rank)) and (self._rank is None or rank > self._rank):
            self._rank, self.step, self.waited = rank, step, 0
            return True
        self.waited += 1
        return False

    def replay(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Consider the evaluations of a run that is resumed, as transformers logged them."""
        steps: dict[int, dict[str, Any]] = {}
        for entry in history:
            step = int(entry.get("step", 0))
            if step:
                steps.setdefault(step, {}).update(entry)
        for step, metrics in sorted(steps.items()):
            if LOSS in metrics and (not self.by_score or METRIC in metrics):
                self.consider(metrics, step)
