"""Report of a temperature training, for people and for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ift_training.temperature.calibration import Calibration
from ift_training.temperature.evaluation import Outcome
from ift_training.temperature.modes import ModeOutcome
from ift_training.temperature.settings import Grain


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """One task, or all: mean rewards with T_0 and with the head at the same seeds, mean T served with the head.

    ``error``: of the difference's mean over prompts, which are paired; NaN for one prompt.
    """

    prompts: int
    before: float
    after: float
    error: float
    temperature: float


def compare(before: Sequence[Outcome], after: Sequence[Outcome]) -> dict[str, TaskOutcome]:
    """By task, ``all`` first."""
    pairs = list(zip(before, after, strict=True))
    tasks = ["all", *sorted({outcome.task for outcome in before})]
    return {task: _compared([pair for pair in pairs if task in ("all", pair[0].task)]) for task in tasks}


def _compared(pairs: Sequence[tuple[Outcome, Outcome]]) -> TaskOutcome:
    count = len(pairs)
    gains = [after.reward - before.reward for before, after in pairs]
    mean = sum(gains) / count
    spread = sum((gain - mean) ** 2 for gain in gains)
    tokens = sum(after.tokens for _, after in pairs)
    return TaskOutcome(
        prompts=count,
        before=sum(before.reward for before, _ in pairs) / count,
        after=sum(after.reward for _, after in pairs) / count,
        error=math.sqrt(spread / (count * (count - 1))) if count > 1 else math.nan,
        temperature=sum(after.temperature * after.tokens for _, after in pairs) / tokens,
    )


@dataclass(slots=True)
class TemperatureReport:
    """``estimates``: held-out rewards, estimated from the rollouts, by policy. ``outcomes``: drawn and judged.

    ``modes``: by task, what the classifier's choices come to; empty where none was trained.
    """

    name: str
    base: str
    grain: Grain
    prompts: dict[str, int]
    held_out: int
    answers: int
    longest: int
    tokens: int = 0
    step: int = 0
    estimates: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, TaskOutcome] = field(default_factory=dict)
    calibration: Calibration | None = None
    modes: dict[str, ModeOutcome] = field(default_factory=dict)
    mode_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    output: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        found = dataclasses.asdict(self)
        found["output"] = None if self.output is None else str(self.output)
        for outcome in found["outcomes"].values():
            outcome["error"] = None if math.isnan(outcome["error"]) else outcome["error"]
        return found

    def scores(self) -> dict[str, Any]:
        """What goes into the adapter's configuration."""
        found = self.to_json()
        return {name: found[name] for name in ("estimates", "outcomes", "modes")} | {
            "calibration": None
            if self.calibration is None
            else {
                "before": self.calibration.before.error,
                "after": self.calibration.after.error,
                "kept": self.calibration.is_kept,
            }
        }

    def show(self, console: Console | None = None) -> None:
        """Print it."""
        console = console or Console()
        table = Table("task", "prompts to learn from")
        for task, count in self.prompts.items():
            table.add_row(task, str(count))
        console.print(table)
        console.print(
            f"{self.answers} answers of at most {self.longest} tokens; {self.held_out} prompts are held out",
            highlight=False,
        )
        if self.output is None:
            return
        table = Table("task", "mean T", "reward at T_0", "with the head", "difference")
        for task, found in self.outcomes.items():
            gain = found.after - found.before
            table.add_row(
                task,
                f"{found.temperature:.2f}",
                f"{found.before:.3f}",
                f"{found.after:.3f}",
                f"{gain:+.3f} ± {found.error:.3f}",
            )
        console.print(table)
        if self.modes:
            console.print(_modes_table(self.modes))
        if (calibration := self.calibration) is not None:
            console.print(
                f"calibration: T = {calibration.fitted:.3f}, ECE {100 * calibration.before.error:.2f} % -> "
                f"{100 * calibration.after.error:.2f} %{'' if calibration.is_kept else ', no better: left out'}",
                highlight=False,
            )
        console.print(f"{self.output}: written, step {self.step}", highlight=False, soft_wrap=True)


def _modes_table(modes: dict[str, ModeOutcome]) -> Table:
    names = list(modes["all"].rewards)
    table = Table("task", *names, "chosen", *(f"share of {name}" for name in names), "tokens")
    for task, found in modes.items():
        rewards = (f"{found.rewards[name]:.3f}" for name in names)
        shares = (f"{found.chosen[name]:.2f}" for name in names)
        table.add_row(task, *rewards, f"{found.reward:.3f}", *shares, f"{found.spent:.0f}")
    return table
