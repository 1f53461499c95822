"""JSON Lines: a JSON object on each line."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ift_training.data.records import parse_json
from ift_training.data.sources.mapped import MappedFile


class JsonLinesReader:
    """Only the offsets of the lines are held (8 bytes each). ``name``: what to call the file."""

    def __init__(self, path: Path, name: str, limit: int | None) -> None:
        self.notes: list[str] = []
        self._name = name
        self._file = MappedFile(path)
        self._offsets = array("Q", itertools.islice(self._lines(), limit))

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> Mapping[str, Any]:
        """See :class:`ift_training.data.sources.base.Reader`."""
        content, start = self._file.bytes, self._offsets[index]
        end = content.find(b"\n", start)
        return parse_json(content[start : len(content) if end < 0 else end])

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Reader`."""
        return f"{self._name}:{self._file.line_of(self._offsets[index])}"

    def _lines(self) -> Iterator[int]:
        """Where each line that is not blank begins."""
        content, start = self._file.bytes, self._file.start
        while start < len(content):
            end = content.find(b"\n", start)
            end = len(content) if end < 0 else end
            if content[start:end].strip():
                yield start
            start = end + 1
