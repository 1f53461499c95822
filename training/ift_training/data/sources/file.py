"""A file of records, or a directory of such files, in any format that is read."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from ift_serve.checks import judge_all, parse_checks
from ift_training.data.record_error import Problem, RecordError
from ift_training.data.records import Record, parse_record
from ift_training.data.settings import SourceSettings
from ift_training.data.sources.base import Reader, SourceError
from ift_training.data.sources.csv_table import CsvReader
from ift_training.data.sources.detect import SUFFIXES, check_regular, detect
from ift_training.data.sources.gzip_file import unpack
from ift_training.data.sources.json_array import JsonArrayReader
from ift_training.data.sources.json_lines import JsonLinesReader
from ift_training.data.sources.parquet import ParquetReader
from ift_training.data.sources.spool import Spool

_READERS: dict[str, type[JsonLinesReader | JsonArrayReader | CsvReader | ParquetReader]] = {
    "json lines": JsonLinesReader,
    "json array": JsonArrayReader,
    "csv": CsvReader,
    "parquet": ParquetReader,
}
_NAMED = 5
"""Files of a directory that a note names."""


class FileSource:
    """The records of a file or directory, as the source's settings want them read."""

    fresh = False

    def __init__(self, settings: SourceSettings) -> None:
        assert settings.file is not None
        self.settings = settings
        self.path = settings.file
        self.task = settings.task_names[0]
        self._checks = parse_checks(settings.checks)
        check_regular(self.path, str(self.path))
        self._spools: list[Spool] = []
        try:
            if self.path.is_dir():
                self._reader: Reader = self._open_directory(settings.limit)
            else:
                self._reader = self._open(self.path, settings.limit)
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        if not len(self._reader):
            raise SourceError(f"{self.path}: holds no records; write one JSON object a line")

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def notes(self) -> list[str]:
        """See :class:`ift_training.data.sources.base.Source`."""
        return self._reader.notes

    def record(self, index: int, turn: int = 0) -> tuple[Record, str]:
        """See :class:`ift_training.data.sources.base.Source`."""
        record = self.unjudged(index)
        if not (verdict := judge_all(record.checks, record.response)):
            raise RecordError("output", f"fails its own check: {verdict.reason}", Problem.FAILS_CHECK)
        return record, self.task

    def fields(self, index: int) -> Mapping[str, Any]:
        """A record's fields as the file has them. Raises RecordError."""
        return self._reader.read(index)

    def unjudged(self, index: int) -> Record:
        """A record whatever its own checks say of its answer. Raises RecordError."""
        record = parse_record(self._reader.read(index), rename=self.settings.rename, ignore=self.settings.ignore)
        return dataclasses.replace(record, checks=(*record.checks, *self._checks)) if self._checks else record

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Source`."""
        return self._reader.where(index)

    def _open(self, path: Path, limit: int | None, name: str | None = None) -> Reader:
        name = path.name if name is None else name
        if (format_ := detect(path, name)) == "gzip":
            spool = unpack(path, name)
            self._spools.append(spool)
            path, format_ = spool.path, detect(spool.path, name)
            if format_ == "gzip":
                raise SourceError(f"{name}: is gzip inside gzip; unpack it once: gunzip")
        return _READERS[format_](path, name, limit)

    def _open_directory(self, limit: int | None) -> Reader:
        found, other = list[Path](), list[Path]()
        for path in sorted(self.path.rglob("*")):
            parts = path.relative_to(self.path).parts
            if path.is_dir() or any(part.startswith(".") for part in parts):
                continue
            (found if path.name.lower().removesuffix(".gz").endswith(SUFFIXES) else other).append(path)
        if not found:
            holds = f"holds {_listed(other, self.path)}" if other else "is empty"
            raise SourceError(f"{self.path}: is a directory without records, it {holds}; wanted: {', '.join(SUFFIXES)}")
        readers: list[Reader] = []
        for path in found:
            left = None if limit is None else limit - sum(map(len, readers))
            if left == 0:
                break
            readers.append(self._open(path, left, str(path.relative_to(self.path))))
        joined = JoinedReaders(readers)
        joined.notes.insert(0, f"{self.path.name}/ is read as {_listed(found[: len(readers)], self.path)}")
        if other:
            joined.notes.append(f"{self.path.name}/ holds what is not read: {_listed(other, self.path)}")
        return joined


class JoinedReaders:
    """Several files' records, one file after the other."""

    def __init__(self, readers: list[Reader]) -> None:
        self._readers = readers
        self._ends = list(accumulate(map(len, readers)))
        self.notes = [note for reader in readers for note in reader.notes]

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int) -> Mapping[str, Any]:
        """See :class:`ift_training.data.sources.base.Reader`."""
        reader, within = self._place(index)
        return reader.read(within)

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Reader`."""
        reader, within = self._place(index)
        return reader.where(within)

    def _place(self, index: int) -> tuple[Reader, int]:
        number = bisect.bisect_right(self._ends, index)
        return self._readers[number], index - (self._ends[number - 1] if number else 0)


def _listed(paths: list[Path], folder: Path) -> str:
    names = [str(path.relative_to(folder)) for path in paths]
    more = f" and {len(names) - _NAMED} more files" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
