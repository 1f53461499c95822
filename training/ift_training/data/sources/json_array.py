"""A JSON file that is one list of objects."""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ift_training.data.records import parse_json
from ift_training.data.sources.base import SourceError
from ift_training.data.sources.mapped import MappedFile

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]|[^\s"\[\]{},]++', re.DOTALL)
"""A string, a bracket, a comma, or anything else up to the next of these: all that finding the elements needs."""


class JsonArrayReader:
    """Only where the elements begin and end is held (16 bytes each); the list is scanned once, not loaded."""

    def __init__(self, path: Path, name: str, limit: int | None) -> None:
        self.notes: list[str] = []
        self._name = name
        self._file = MappedFile(path)
        self._places = array("Q", itertools.chain.from_iterable(itertools.islice(self._elements(), limit)))

    def __len__(self) -> int:
        return len(self._places) // 2

    def read(self, index: int) -> Mapping[str, Any]:
        """See :class:`ift_training.data.sources.base.Reader`."""
        return parse_json(self._file.bytes[self._places[2 * index] : self._places[2 * index + 1]])

    def where(self, index: int) -> str:
        """See :class:`ift_training.data.sources.base.Reader`."""
        line = f"{self._name}:{self._file.line_of(self._places[2 * index])}"
        shares = self._on_one_line(index - 1) or self._on_one_line(index)
        return f"{line}, element {index + 1}" if shares else line

    def _on_one_line(self, index: int) -> bool:
        """Whether an element and the next one begin on the same line."""
        if index < 0 or index + 1 >= len(self):
            return False
        return self._file.bytes.find(b"\n", self._places[2 * index], self._places[2 * index + 2]) < 0

    def _elements(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each element. Raises SourceError where the list ends too early or too late."""
        depth, begin, end = 0, -1, -1
        tokens = _TOKEN.finditer(self._file.bytes, self._file.start)
        for token in tokens:
            kind = token[0] if token.end() - token.start() == 1 else b""
            if kind in (b",", b"]") and depth == 1:
                if begin >= 0:
                    yield begin, end
                elif kind == b",":
                    raise self._broken(token.start(), "has a comma without an element before it")
                begin = -1
            elif kind == b"}" and depth == 1:
                raise self._broken(token.start(), "has a } that closes nothing")
            elif depth >= 1:
                begin, end = (token.start() if begin < 0 else begin), token.end()
            if kind == b'"':
                raise self._broken(token.start(), "has a string that does not end")
            if kind in (b"[", b"{"):
                depth += 1
            elif kind in (b"]", b"}"):
                depth -= 1
            if not depth:
                break
        else:
            raise SourceError(f"{self._name}: the list does not end; the file is cut off, get it again")
        if (more := next(tokens, None)) is not None:
            raise self._broken(more.start(), "goes on after its list; write one list of objects, or an object a line")

    def _broken(self, offset: int, problem: str) -> SourceError:
        return SourceError(f"{self._name}:{self._file.line_of(offset)}: {problem}")
