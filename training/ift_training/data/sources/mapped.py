"""A file's bytes, mapped into memory when they are first asked for."""

from __future__ import annotations

import mmap
from pathlib import Path


class MappedFile:
    """Opened again after a journey to another process; an empty file cannot be mapped and is not to be asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_bytes": None}

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
        """The number of the line that holds a byte, from 1. Counts the lines before, so it is for messages only."""
        step, lines = 1 << 24, 1
        for begin in range(0, offset, step):
            lines += self.bytes[begin : min(offset, begin + step)].count(b"\n")
        return lines
