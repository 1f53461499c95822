"""Interfaces of sources of records and of readers of file formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ift_training.data.records import Record
from ift_training.data.settings import SourceSettings


class SourceError(ValueError):
    """A source that gives no examples; the message names it and says what to do."""


class Source(Protocol):
    """Records 0 to ``len - 1`` of one task or several."""

    settings: SourceSettings

    @property
    def fresh(self) -> bool:
        """Whether every pass gives other records."""

    @property
    def notes(self) -> list[str]:
        """What a person should know of how the source was read, a sentence each."""

    def __len__(self) -> int: ...

    def record(self, index: int, turn: int) -> tuple[Record, str]:
        """A record and its task name; ``turn`` counts the passes over the source. Raises RecordError."""

    def where(self, index: int) -> str:
        """Where a record stands, for people."""


class Reader(Protocol):
    """The records of one file, by number, without holding them in memory."""

    notes: list[str]

    def __len__(self) -> int: ...

    def read(self, index: int) -> Mapping[str, Any]:
        """The fields of a record as the file has them. Raises RecordError."""

    def where(self, index: int) -> str:
        """File and line of a record."""
