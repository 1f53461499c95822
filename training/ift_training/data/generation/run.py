"""What every run has: its store and servers, who speaks, and how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ift_training.data.generation.calls import Servers, Speaker
from ift_training.data.generation.errors import GenerationError
from ift_training.data.generation.prompts import Prompts
from ift_training.data.generation.record import GeneratedRecord, Lineage, Reason
from ift_training.data.generation.seeds import fingerprint
from ift_training.data.generation.settings import Role, RunRecipe
from ift_training.data.generation.store import RecordStore

_FREE = frozenset({"store", "output", "tries", "rounds", "wanted", "timeout", "seeds"})
"""Fields that a second run on the same store may have otherwise."""


@dataclass(slots=True)
class Progress:
    """How far a stage is. counts: records by status; rejections: by the name of the first reason."""

    stage: str = ""
    total: int | None = None
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    kept_calls: int = 0
    started: float = field(default_factory=time.monotonic)

    def begin(self, stage: str, total: int | None) -> None:
        """Go on with another stage."""
        self.stage, self.total, self.done = stage, total, 0

    def add(self, record: GeneratedRecord) -> None:
        """Count a record."""
        self.counts[record.status] += 1
        if record.status == "rejected" and record.reasons:
            self.rejections[record.reasons[0].name] += 1

    @property
    def note(self) -> str:
        """A few words for a person who waits: kept and rejected records, tokens, and their rate."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        spent = f"{self.generated_tokens:,} tokens, {self.generated_tokens / seconds:.0f}/s"
        return f"{self.counts['kept']:,} kept, {self.counts['rejected']:,} rejected, {spent}"


Shown = Callable[[Progress], None]


class Run:
    """One run of a recipe on a store. ``shown`` is called when anything has got on."""

    def __init__(self, recipe: RunRecipe, store: RecordStore, servers: Servers, shown: Shown) -> None:
        self.recipe = recipe
        self.store = store
        self.servers = servers
        self.prompts = Prompts(recipe.prompts)
        self.progress = Progress()
        self._shown = shown

    async def begin(self, kind: str, seeds: list[GeneratedRecord], roles: Mapping[str, Role]) -> dict[str, Speaker]:
        """Keep the seeds; who speaks in each role. Raises GenerationError if the store was made otherwise.

        kind: the run's, such as ``generate``; a store may hold a run of each kind.
        """
        found = {name: await self.servers.speaker(role) for name, role in roles.items()}
        recipe = {name: value for name, value in self.recipe.model_dump(mode="json").items() if name not in _FREE}
        now: dict[str, Any] = {
            "recipe": recipe | {"prompts": self.prompts.references()},
            "models": {name: [speaker.model, speaker.adapter] for name, speaker in found.items()},
            "seeds": fingerprint(seeds),
        }
        before = self.store.note(kind)
        if before is None:
            self.store.set_note(kind, now)
        elif (other := _difference(before, now)) is not None:
            raise GenerationError(
                f"{self.store.path}: {other} is not what this store was made with; name another store, or go back to it"
            )
        self.store.put_all(seeds)
        return found

    def keep(self, records: list[GeneratedRecord]) -> None:
        """Keep records that were made together, and count them."""
        self.store.put_all(records)
        for record in records:
            self.progress.add(record)

    def advance(self) -> None:
        """One more of the stage is done."""
        self.progress.done += 1
        self.show()

    def show(self) -> None:
        """Tell how far the run is."""
        totals = self.servers.totals()
        self.progress.prompt_tokens, self.progress.generated_tokens, self.progress.kept_calls = totals
        self._shown(self.progress)

    def lineage(self, step: str, speaker: Speaker, prompts: tuple[str, ...], **fields: Any) -> Lineage:
        """Where a record came from that a speaker made with prompts of these names."""
        references = tuple(self.prompts[name].reference for name in prompts)
        return Lineage(
            step, prompts=references, model=speaker.model, adapter=speaker.adapter, seed=self.recipe.seed, **fields
        )


def rejected(record: GeneratedRecord, name: str, message: str) -> GeneratedRecord:
    """The record, rejected for one reason."""
    return record.judged("rejected", Reason(name, message))


def _difference(before: Any, now: Any, where: str = "") -> str | None:
    """The first field in which two trees of plain values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            found = _difference(before.get(name), now.get(name), f"{where}.{name}" if where else name)
            if found is not None:
                return found
        return None
    return where if before != now else None
