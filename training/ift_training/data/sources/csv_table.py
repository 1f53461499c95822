"""CSV: a header with the names of the fields, then a record a row; quoted cells may hold line ends."""

from __future__ import annotations

import csv
import itertools
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ift_training.data.record_error import Problem, RecordError
from ift_training.data.sources.base import SourceError
from ift_training.data.sources.mapped import MappedFile

_DELIMITERS = ",\t;|"
_SAMPLE = 50
"""Rows that the dialect is found on."""
_STRUCTURED = ("messages", "conversations", "conversation", "prompt", "completion", "checks")
"""Fields that a cell may hold as JSON."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How cells are separated, and how a quote inside a quoted cell is written: doubled, or after ``escape``."""

    delimiter: str
    escape: str | None = None

    def rows(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """The rows of text lines. Raises csv.Error."""
        return csv.reader(
            lines, delimiter=self.delimiter, escapechar=self.escape, doublequote=self.escape is None, strict=True
        )


class CsvReader:
    """Only the offsets of the rows are held (8 bytes each)."""

    def __init__(self, path: Path, name: str, limit: int | None) -> None:
        self._name = name
        self._file = MappedFile(path)
        self._end = b"\n" if b"\n" in self._file.bytes[: 1 << 20] else b"\r"
        self._dialect = _dialect(self)
        starts = self._starts()
        first = next(starts, None)
        if first is None:
            raise SourceError(f"{name}: holds no header; the first row names the fields")
        self._header = self._names(self._row(first))
        self._offsets = array("Q", itertools.islice(starts, limit))
        shown = {"\t": "tab"}.get(self._dialect.delimiter, repr(self._dialect.delimiter))
        self.notes = [f"{name} is read as CSV, cells separated by {shown}: {', '.join(self._header)}"]

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> Mapping[str, Any]:
        """See :class:`ift_training.data.sources.base.Reader`; empty cells are left out."""
        try:
            row = self._row(self._offsets[index])
        except UnicodeDecodeError as error:
            raise RecordError(
                "line", f"is not UTF-8 at byte {error.start}; save the file as UTF-8", Problem.UNREADABLE
            ) from error
        except csv.Error as error:
            raise RecordError("line", f"is not CSV: {error}", Problem.UNREADABLE) from error
        if len(row) != len(self._header):
            raise RecordError(
                "line",
                f"does not fit its header: it has {len(row)} cells, not {len(self._header)}",
                Problem.NOT_A_RECORD,
            )
        return {name: _value(name, cell) for name, cell in zip(self._header, row, strict=True) if cell}

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Reader`."""
        return f"{self._name}:{self._file.line_of(self._offsets[index])}"

    def lines(self, start: int, places: list[int] | None = None) -> Iterator[str]:
        """Text lines from a byte on, with their ends; where the last one given ends is put in ``places[0]``."""
        content = self._file.bytes
        while start < len(content):
            end = content.find(self._end, start)
            end = len(content) if end < 0 else end + 1
            if places is not None:
                places[0] = end
            yield content[start:end].decode("utf-8")
            start = end

    @property
    def first(self) -> int:
        """Where the header begins."""
        return self._file.start

    def _row(self, offset: int) -> list[str]:
        return next(self._dialect.rows(self.lines(offset)), [])

    def _starts(self) -> Iterator[int]:
        """Where each row that is not blank begins. One that cannot be read ends with its line."""
        content, start = self._file.bytes, self._file.start
        while start < len(content):
            places = [start]
            rows = self._dialect.rows(self.lines(start, places))
            try:
                for row in rows:
                    if row:
                        yield start
                    start = places[0]
                return
            except (csv.Error, UnicodeDecodeError):
                yield start
                end = content.find(self._end, start)
                start = len(content) if end < 0 else end + 1

    def _names(self, header: list[str]) -> list[str]:
        names = [cell.strip() or f"column {index + 1}" for index, cell in enumerate(header)]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise SourceError(f"{self._name}:1: the header names {doubled!r} twice; give the columns different names")
        return names


def _dialect(reader: CsvReader) -> Dialect:
    """The delimiter that cuts most of the first rows into as many cells as the header.

    Quotes inside cells are doubled, unless that cannot be read and quotes behind backslashes can.
    """
    doubled = max((_fit(reader, Dialect(delimiter)) for delimiter in _DELIMITERS), key=lambda fit: fit.order)
    if doubled.clean:
        return doubled.dialect
    escaped = _fit(reader, Dialect(doubled.dialect.delimiter, "\\"))
    return escaped.dialect if escaped.clean and escaped.quotes_escaped else doubled.dialect


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a dialect makes of the first rows. clean: all were read, each with ``width`` cells; alike: how many were."""

    dialect: Dialect
    alike: int
    width: int
    clean: bool
    quotes_escaped: bool

    @property
    def order(self) -> tuple[int, int]:
        """The larger, the better."""
        return self.alike, self.width


def _fit(reader: CsvReader, dialect: Dialect) -> _Fit:
    widths, lines, clean = list[int](), list[str](), True

    def kept() -> Iterator[str]:
        for line in reader.lines(reader.first):
            lines.append(line)
            yield line

    try:
        for row in itertools.islice(dialect.rows(kept()), _SAMPLE):
            widths += [len(row)] if row else []
    except (csv.Error, UnicodeDecodeError):
        clean = False
    if not widths or widths[0] < 2:
        return _Fit(dialect, 0, 0, clean and not widths, False)
    alike = sum(width == widths[0] for width in widths)
    return _Fit(dialect, alike, widths[0], clean and alike == len(widths), any('\\"' in line for line in lines))


def _value(name: str, cell: str) -> Any:
    """A cell's text, or the list in it where the field is one that holds lists."""
    if name in _STRUCTURED and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError) as error:
            if name not in ("prompt", "completion"):
                raise RecordError(name, f"is not JSON in its cell: {error}", Problem.WRONG_TYPE) from error
    return cell
