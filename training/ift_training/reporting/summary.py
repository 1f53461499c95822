"""Results of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_training.data.report import DataReport
from ift_training.reporting.memory import MemoryEstimate

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(slots=True)
class TrainingReport:
    """before, after: share of validation answers that pass, by task, 0 to 1; of the base and of the written adapter.

    samples: a few requests with their answers over the training. losses: of the validation (``eval_...``), measured on
    what was written, and of the training, as logged last up to that step. best_step: None unless the best was chosen.
    output is None after a dry run.
    """

    name: str
    base: str
    data: DataReport
    memory: MemoryEstimate
    trained_parameters: int
    output: Path | None = None
    steps: int = 0
    best_step: int | None = None
    seconds: float = 0.0
    stopped_early: bool = False
    losses: dict[str, float] = field(default_factory=dict)
    losses_before: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def gain(self) -> float | None:
        """Mean over tasks after, less before; None where nothing was judged."""
        return _mean(self.after) - _mean(self.before) if self.before and self.after else None

    @property
    def written_step(self) -> int:
        """The step whose weights were written."""
        return self.steps if self.best_step is None else self.best_step

    @property
    def no_gain(self) -> str | None:
        """What to tell of a training whose result is no better than its beginning."""
        if self.gain is not None:
            if self.gain > 0:
                return None
            shares = f"{100 * _mean(self.after):.1f} % of answers pass, {100 * _mean(self.before):.1f} % before"
            return f"No better than before the training: {shares}."
        first, last = self.losses_before.get("eval_loss"), self.losses.get("eval_loss")
        if first is None or last is None or last < first:
            return None
        return f"No better than before the training: validation loss {last:.4f}, {first:.4f} before."

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "name": self.name,
            "base": self.base,
            "output": None if self.output is None else str(self.output),
            "trained_parameters": self.trained_parameters,
            "steps": self.steps,
            "best_step": self.best_step,
            "seconds": round(self.seconds, 1),
            "stopped_early": self.stopped_early,
            "written_step": self.written_step,
            "no_gain": self.no_gain,
            "losses": self.losses,
            "losses_before": self.losses_before,
            "scores": {"before": self.before, "after": self.after, "gain": self.gain},
            "samples": self.samples,
            "memory": self.memory.to_json(),
            "data": self.data.to_json(),
        }

    def table(self) -> Table:
        """Scores by task, before and after."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("task", title="validation answers that pass, %")
        for name in ("base", "adapter", "gain"):
            table.add_column(name, justify="right")
        rows = [*((task, self.before.get(task, 0.0), share) for task, share in self.after.items())]
        rows.append(("mean", _mean(self.before), _mean(self.after)))
        for task, before, after in rows:
            table.add_row(escape(task), f"{100 * before:.1f}", f"{100 * after:.1f}", f"{100 * (after - before):+.1f}")
        return table

    def show(self) -> None:
        """For a terminal, after the run."""
        from rich.console import Console

        console = Console()
        if self.output is None:
            console.print(f"{self.trained_parameters:,} parameters would be trained. Nothing was written.")
            return
        if self.after:
            console.print(self.table())
        early = ", stopped early" if self.stopped_early else ""
        best = f", written: step {self.best_step}, the best" if self.best_step not in (None, self.steps) else ""
        if self.no_gain is not None:
            console.print(f"[yellow]{self.no_gain}[/]")
        console.print(f"{self.steps} steps{best}{early}, {self.seconds:.0f} s. Adapter [bold]{self.name}[/] written to")
        console.print(str(self.output), soft_wrap=True, highlight=False)


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares) if shares else 0.0
