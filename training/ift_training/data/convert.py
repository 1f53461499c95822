"""Files of others into ours: what fits is written, what does not is named with its line, field and reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ift_training.data.dropped import DroppedRecords
from ift_training.data.lines import line_of
from ift_training.data.record_error import RecordError
from ift_training.data.settings import SourceSettings
from ift_training.data.sources import FileSource
from ift_training.data.sources.base import SourceError

_SHOWN = 20


@dataclass(slots=True)
class Conversion:
    """What became of a source. refusals: the first records that do not fit, a line each."""

    read: int = 0
    written: int = 0
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Records that do not fit."""
        return self.read - self.written

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "read": self.read,
            "written": self.written,
            "refused": self.refused,
            "refusals": self.refusals,
            "notes": self.notes,
        }


def convert(
    settings: SourceSettings,
    output: Path,
    dropped: DroppedRecords | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Conversion:
    """Write the records of a file or directory as JSON Lines. Raises SourceError.

    ``dropped`` gets every record that does not fit. The output is there when all of it is: it is written beside, and
    then takes the name.
    """
    source = FileSource(settings)
    found = Conversion(notes=list(source.notes))
    with whole_file(output) as file:
        for index in range(len(source)):
            found.read += 1
            try:
                record, _ = source.record(index)
            except RecordError as error:
                if len(found.refusals) < _SHOWN:
                    found.refusals.append(f"{source.where(index)}: {error}")
                if dropped is not None:
                    dropped.add(str(settings.file), source.where(index), error)
            else:
                file.write(json.dumps(line_of(record), ensure_ascii=False) + "\n")
                found.written += 1
            progress(1)
        if not found.written:
            raise SourceError(f"{settings.file}: no record fits; the first: {found.refusals[0]}")
    return found


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file that takes its name when it is whole; after an error, what had the name is as it was.

    Raises SourceError where it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            file = part.open("w", encoding="utf-8")
        except OSError as error:
            raise SourceError(f"{path}: cannot be written: {error.strerror or error}") from error
        with file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
