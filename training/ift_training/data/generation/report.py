"""What a run came to: records by step and status, why records were dropped, what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ift_training.data.generation.record import STATUSES, Status
from ift_training.data.generation.store import RecordStore

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """counts: records by step and status. reasons: by step, verdict and name. Tokens are those of answered calls.

    given_up: records that failed too often to be evolved further. breadth: sizes of the pool's clusters before and
    after in-breadth evolving, and how even they were; None without it.
    """

    counts: Counter[tuple[str, Status]]
    reasons: Counter[tuple[str, Status, str]]
    calls: int
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    given_up: Sequence[Mapping[str, Any]] = ()
    breadth: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, store: RecordStore) -> GenerationReport:
        """Of everything that a store holds."""
        prompt, generated = store.calls.usage()
        seconds = float(store.note("seconds") or 0.0)
        given_up, breadth = store.note("evolve.given_up") or (), store.note("evolve.breadth")
        return cls(store.counts(), store.reasons(), len(store.calls), prompt, generated, seconds, given_up, breadth)

    @property
    def steps(self) -> list[str]:
        """Steps that there are records of."""
        return sorted({step for step, _ in self.counts})

    def yield_of(self, step: str) -> float:
        """The share of a step's records that is kept."""
        return self.counts[step, "kept"] / sum(self.counts[step, status] for status in STATUSES)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "steps": {
                step: {status: self.counts[step, status] for status in STATUSES} | {"yield": self.yield_of(step)}
                for step in self.steps
            },
            "reasons": [
                {"step": step, "verdict": verdict, "reason": name, "records": count}
                for (step, verdict, name), count in sorted(self.reasons.items())
            ],
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "seconds": round(self.seconds, 1),
            "given_up": list(self.given_up),
            "breadth": self.breadth,
        }

    def table(self) -> RenderableType:
        """For a terminal."""
        from rich.console import Group
        from rich.table import Table

        steps = Table("step", *STATUSES, "yield, %", title="records")
        for step in self.steps:
            numbers = (f"{self.counts[step, status]:,}" for status in STATUSES)
            steps.add_row(step, *numbers, f"{100 * self.yield_of(step):.1f}")
        why = Table("step", "verdict", "reason", "records", title="reasons")
        for (step, verdict, name), count in sorted(self.reasons.items(), key=lambda item: (item[0][0], -item[1])):
            why.add_row(step, verdict, name, f"{count:,}")
        cost = (
            f"{self.calls:,} answers, {self.prompt_tokens:,} tokens read and {self.generated_tokens:,} written, "
            f"{self.seconds / 60:.1f} minutes of runs"
        )
        notes = [cost]
        if self.given_up:
            notes.append(f"{len(self.given_up):,} records were given up after failing too often")
        if self.breadth is not None:
            before, after = self.breadth["evenness"]
            notes.append(f"evenness of the clusters: {before:.2f} before, {after:.2f} after")
        return Group(steps, *([why] if self.reasons else []), *notes)
