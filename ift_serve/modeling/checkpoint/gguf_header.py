"""The header of a GGUF file, walked through before a library reads it.

The package gguf believes what a header says: an array of 2^60 numbers in a file of a hundred bytes keeps it busy until
no memory is left. Here every count is held against the bytes that are there.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from io import BufferedReader
from pathlib import Path

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the values of each kind that are of one size."""
_LONGEST_ARRAY = 1 << 22
"""Entries. The largest vocabularies have some 2^18 tokens, and a reader makes objects of each."""
_MOST_DIMENSIONS, _MOST_ELEMENTS = 4, 1 << 48
_ALIGNMENT = "general.alignment"
_LARGEST_ALIGNMENT = 1 << 16


class GgufHeaderError(ValueError):
    """A header that cannot be of a whole GGUF file; the message says where."""


def check_gguf_header(file: Path) -> None:
    """Raise GgufHeaderError for a file whose header says more than the file holds, and OSError."""
    with file.open("rb") as opened:
        _Header(opened, file.stat().st_size).check()


class _Header:
    """``left``: bytes that have not been looked at."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._size = self.left = size
        self._order = "<"

    def check(self) -> None:
        if self._take(4) != MAGIC:
            raise GgufHeaderError("it does not begin as GGUF files do")
        raw = self._take(4)
        versions = {order: struct.unpack(f"{order}I", raw)[0] for order in "<>"}
        found = next((order for order, version in versions.items() if version in _VERSIONS), None)
        if found is None:
            raise GgufHeaderError(f"version {versions['<']} is not one of {', '.join(map(str, _VERSIONS))}")
        self._order = found
        tensors, values = self._number("Q"), self._number("Q")
        for index in range(self._count(values, 13, "values")):
            self._value(index)
        for index in range(self._count(tensors, 24, "tensors")):
            self._tensor(index)

    def _take(self, count: int) -> bytes:
        if count > self.left:
            raise GgufHeaderError(f"it is cut off: {count} bytes more are announced, and {self.left} are there")
        self.left -= count
        content = self._file.read(count)
        if len(content) != count:
            raise GgufHeaderError("it became shorter while it was being read")
        return content

    def _skip(self, count: int) -> None:
        if count > self.left:
            raise GgufHeaderError(f"it is cut off: {count} bytes more are announced, and {self.left} are there")
        self.left -= count
        self._file.seek(count, 1)

    def _number(self, kind: str) -> int:
        value: int = struct.unpack(self._order + kind, self._take(struct.calcsize("=" + kind)))[0]
        return value

    def _count(self, count: int, least: int, what: str) -> int:
        """A number of things of at least so many bytes each."""
        if count * least > self.left:
            raise GgufHeaderError(f"{count} {what} are announced, and {self.left} bytes are there")
        return count

    def _value(self, index: int) -> None:
        name = self._take(self._number("Q")).decode(errors="replace")
        kind = self._number("I")
        if name == _ALIGNMENT:
            alignment = self._number("I") if kind == 4 else 0
            if not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
                raise GgufHeaderError(f"{_ALIGNMENT} is no power of two up to {_LARGEST_ALIGNMENT}")
        elif kind == _ARRAY:
            self._array(name)
        elif kind == _STRING:
            self._skip(self._number("Q"))
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise GgufHeaderError(f"value {index} is of an unknown kind, {kind}")

    def _array(self, name: str) -> None:
        kind, count = self._number("I"), self._number("Q")
        if count > _LONGEST_ARRAY:
            raise GgufHeaderError(f"{name[:64]!a} has {count} entries; no model has over {_LONGEST_ARRAY}")
        if kind == _STRING:
            for _ in range(self._count(count, 8, "strings")):
                self._skip(self._number("Q"))
        elif kind in _SIZES:
            self._skip(count * _SIZES[kind])
        else:
            raise GgufHeaderError(f"{name[:64]!a} is an array of kind {kind}, which no model has")

    def _tensor(self, index: int) -> None:
        name = self._take(self._number("Q")).decode(errors="replace")
        dimensions = self._number("I")
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise GgufHeaderError(f"tensor {index}, {name[:64]!a}, has {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= self._number("Q")
        self._skip(4)
        offset = self._number("Q")
        if not 0 < elements <= _MOST_ELEMENTS or offset > self._size:
            raise GgufHeaderError(f"tensor {index}, {name[:64]!a}, does not fit into the file")
