"""A file's bytes, mapped into memory when they are first asked for."""

from __future__ import annotations

import mmap
from pathlib import Path

_STEP = 1 << 24
"""Bytes that are copied at once to count their lines."""


class MappedFile:
    """Opened again after a journey to another process; an empty file cannot be mapped and is not to be asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes: mmap.mmap | None = None
        self._counted = (0, 1)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_bytes": None, "_counted": (0, 1)}

    @property
    def bytes(self) -> mmap.mmap:
        """The whole file. Raises OSError."""
        if self._bytes is None:
            with self.path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._bytes

    @property
    def start(self) -> int:
        """Where the text begins: behind a byte order mark."""
        return 3 if self.bytes[:3] == b"\xef\xbb\xbf" else 0

    def line_of(self, offset: int) -> int:
        """The number of the line that holds a byte, from 1.

        Counts the lines since the offset that was asked for last, or from the beginning for an earlier one.
        """
        start, lines = self._counted if self._counted[0] <= offset else (0, 1)
        for begin in range(start, offset, _STEP):
            lines += self.bytes[begin : min(offset, begin + _STEP)].count(b"\n")
        self._counted = (offset, lines)
        return lines
