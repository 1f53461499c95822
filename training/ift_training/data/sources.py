"""Sources of records by number: files that are never read into memory, and procedural families."""

from __future__ import annotations

import dataclasses
import mmap
import random
from array import array
from collections.abc import Iterator
from typing import Protocol

from ift_training.data.checks import judge
from ift_training.data.procedural import draw, family
from ift_training.data.procedural.splits import Split
from ift_training.data.records import Record, RecordError, parse_line
from ift_training.data.settings import SourceSettings


class SourceError(ValueError):
    """A source that gives no examples; the message names it and says what to do."""


class Source(Protocol):
    """Records 0 to ``len - 1`` of one task or several."""

    settings: SourceSettings

    @property
    def fresh(self) -> bool:
        """Whether every pass gives other records."""

    def __len__(self) -> int: ...

    def record(self, index: int, turn: int) -> tuple[Record, str]:
        """A record and its task name; ``turn`` counts the passes over the source. Raises RecordError."""

    def where(self, index: int) -> str:
        """Where a record stands, for people."""


class JsonlSource:
    """A file of records; only the offsets of its lines are held (8 bytes each)."""

    fresh = False

    def __init__(self, settings: SourceSettings) -> None:
        assert settings.jsonl is not None
        self.settings = settings
        self.path = settings.jsonl
        self.task = settings.task_names[0]
        self._map: mmap.mmap | None = None
        try:
            empty = self.path.stat().st_size == 0
            self._offsets = array("Q") if empty else array("Q", _line_offsets(self._mapped(), settings.limit))
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        if not self._offsets:
            raise SourceError(f"{self.path}: holds no records; write one JSON object a line")

    def __len__(self) -> int:
        return len(self._offsets)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_map": None}

    def record(self, index: int, turn: int = 0) -> tuple[Record, str]:
        """See :class:`Source`."""
        mapped, start = self._mapped(), self._offsets[index]
        end = mapped.find(b"\n", start)
        line = mapped[start : len(mapped) if end < 0 else end]
        record = parse_line(line, rename=self.settings.rename, ignore=self.settings.ignore)
        if self.settings.checks:
            record = dataclasses.replace(record, checks=(*record.checks, *self.settings.checks))
        if not (verdict := judge(record, record.response)):
            raise RecordError("output", f"fails its own check: {verdict.reason}")
        return record, self.task

    def where(self, index: int) -> str:
        """See :class:`Source`. Counts the lines before, so it is for messages only."""
        before = self._mapped()[: self._offsets[index]].count(b"\n")
        return f"{self.path.name}:{before + 1}"

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map


def _line_offsets(mapped: mmap.mmap, limit: int | None) -> Iterator[int]:
    """Where each line that is not blank begins; a byte order mark is passed over."""
    start = 3 if mapped[:3] == b"\xef\xbb\xbf" else 0
    found = 0
    while start < len(mapped) and (limit is None or found < limit):
        end = mapped.find(b"\n", start)
        end = len(mapped) if end < 0 else end
        if mapped[start:end].strip():
            found += 1
            yield start
        start = end + 1


class ProceduralSource:
    """Examples generated on demand: the same for the same seed, other ones each pass."""

    fresh = True

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
        """See :class:`Source`. Families take turns."""
        name = self.names[index % len(self.names)]
        rng = random.Random(f"{self.seed}|{name}|{self.split}|{turn}|{index}")
        return Record.of_example(draw(family(name), self.split, rng)), self.settings.name or name

    def where(self, index: int) -> str:
        """See :class:`Source`."""
        return f"{self.names[index % len(self.names)]} {index}"


def open_source(settings: SourceSettings, seed: int) -> Source:
    """The source that the settings describe. Raises SourceError."""
    return ProceduralSource(settings, seed) if settings.procedural else JsonlSource(settings)
