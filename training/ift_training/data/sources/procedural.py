"""Examples that are generated when they are asked for."""

from __future__ import annotations

import random
from typing import ClassVar

from ift_training.data.procedural import draw, family
from ift_training.data.procedural.splits import Split
from ift_training.data.records import Record
from ift_training.data.settings import SourceSettings


class ProceduralSource:
    """Examples generated on demand: the same for the same seed, other ones each pass."""

    fresh = True
    notes: ClassVar[list[str]] = []

    def __init__(self, settings: SourceSettings, seed: int, *, split: Split | None = None, count: int = 0) -> None:
        assert settings.procedural
        self.settings = settings
        self.names = settings.procedural
        self.seed = seed
        self.split: Split = split or settings.split
        self._count = count or settings.count

    def __len__(self) -> int:
        return self._count

    def record(self, index: int, turn: int = 0) -> tuple[Record, str]:
        """See :class:`ift_training.data.sources.base.Source`. Families take turns."""
        name = self.names[index % len(self.names)]
        rng = random.Random(f"{self.seed}|{name}|{self.split}|{turn}|{index}")
        return Record.of_example(draw(family(name), self.split, rng)), self.settings.name or name

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Source`."""
        return f"{self.names[index % len(self.names)]} {index}"
