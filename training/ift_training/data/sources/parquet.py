"""Parquet: converted batch by batch into a temporary file of JSON lines, because single rows cannot be read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ift_training.data.sources.base import SourceError
from ift_training.data.sources.json_lines import JsonLinesReader
from ift_training.data.sources.spool import Spool

_ROWS = 256


class ParquetReader:
    """Needs pyarrow, which the extra `parquet` installs."""

    def __init__(self, path: Path, name: str, limit: int | None) -> None:
        self.notes: list[str] = []
        self._name = name
        self._spool = Spool(name, itertools.islice(_lines(path, name), limit))
        empty = self._spool.path.stat().st_size == 0
        self._lines = None if empty else JsonLinesReader(self._spool.path, name, None)

    def __len__(self) -> int:
        return 0 if self._lines is None else len(self._lines)

    def read(self, index: int) -> Mapping[str, Any]:
        """See :class:`ift_training.data.sources.base.Reader`."""
        assert self._lines is not None
        return self._lines.read(index)

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Reader`."""
        return f"{self._name}: row {index + 1}"


def _lines(path: Path, name: str) -> Iterator[bytes]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SourceError(f"{name}: is Parquet, which needs pyarrow: pip install 'ift-serve[parquet]'") from error
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    yield json.dumps(_plain(row), default=_unreadable).encode() + b"\n"
    except (ArrowException, UnicodeDecodeError) as error:
        raise SourceError(f"{name}: the Parquet file cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """Without the nulls that a column of objects gives to all of them when one has a field, and bytes as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return _unreadable(value)
    return value


def _unreadable(value: Any) -> dict[str, str]:
    """Stands for a value that is no text, such as a date: an object, which no text field takes."""
    return {"type": type(value).__name__}
