"""The file that names every record that was dropped: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ift_training.data.record_error import RecordError
from ift_training.data.sources.base import SourceError


class DroppedRecords:
    """Writes records as they are dropped, so that none is held and the file is there after an error too.

    Fields of a line: ``source`` (where the recipe has it), ``place`` (file and line), ``field``, ``problem`` and
    ``reason``.
    """

    def __init__(self, file: IO[str], name: str) -> None:
        self._file = file
        self.name = name

    def add(self, source: str, place: str, error: RecordError) -> None:
        """One record. Raises OSError."""
        line = {"source": source, "place": place, "field": error.field, "problem": str(error.problem)}
        self._file.write(json.dumps({**line, "reason": error.message}, ensure_ascii=False) + "\n")


@contextmanager
def dropped_records(path: Path | None) -> Iterator[DroppedRecords | None]:
    """The file to write to, if one is asked for. Raises SourceError where it cannot be written."""
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise SourceError(f"--dropped {path}: cannot be written: {error.strerror or error}") from error
    with file:
        yield DroppedRecords(file, str(path))
