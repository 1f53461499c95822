"""Shares of responses that pass, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PassRates:
    """Share of responses that pass, 0 to 1, by task, family or constraint."""

    tasks: dict[str, float]

    @property
    def mean(self) -> float:
        """Every task counts the same; 0 without any."""
        return sum(self.tasks.values()) / len(self.tasks) if self.tasks else 0.0


def pass_rates(outcomes: Iterable[tuple[str, bool]]) -> PassRates:
    """The shares of (task, passed) pairs, tasks in the order in which they first come."""
    tasks: dict[str, list[bool]] = {}
    for task, passed in outcomes:
        tasks.setdefault(task, []).append(passed)
    return PassRates({task: sum(found) / len(found) for task, found in tasks.items()})
