"""Copies of the adapters that are loaded, so that an engine that is restarted loads the same versions again."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import tempfile
from pathlib import Path
from typing import IO

from ift_kernels.cache_directory import cache_directory

_log = logging.getLogger(__name__)
_PURPOSE = "loaded-adapters"
_LOCK = "lock"
_DISK_SHARE = 2
"""At most this fraction, 1 / n, of the free disk space is filled."""


class AdapterCopies:
    """A private directory with one directory a version, of at most ``limit`` bytes; gone with ``close``.

    Where nothing can be written nothing is kept, and a version is loaded again from where it came from, if it is still
    there. What servers that were killed have left is removed by the next one: the lock on it is free.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._root: Path | None = None
        self._lock: IO[bytes] | None = None

    def place(self) -> tuple[str, int]:
        """Where the engine may put copies of what it loads, and how many bytes of them all; empty where it may not."""
        root = self._open() if self._limit else None
        return ("", 0) if root is None else (str(root), self._limit)

    def find(self, version: str) -> Path | None:
        """The copy of a version, if it was kept."""
        found = None if self._root is None else self._root / version
        return found if found is not None and found.is_dir() else None

    def retain(self, versions: set[str]) -> None:
        """Remove all copies but those."""
        if self._root is None:
            return
        for entry in self._root.iterdir():
            if entry.is_dir() and entry.name not in versions:
                shutil.rmtree(entry, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        root, self._root = self._root, None
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open(self) -> Path | None:
        if self._root is None and (parent := cache_directory(_PURPOSE)) is not None:
            try:
                _remove_left(parent)
                root = Path(tempfile.mkdtemp(prefix="server-", dir=parent))
                self._lock = (root / _LOCK).open("wb")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._root = root
            except OSError as error:
                _log.warning("adapters are not kept for a restart: %s", error)
        return self._root


def _remove_left(parent: Path) -> None:
    """Remove the directories of servers that are gone."""
    for lock in parent.glob(f"server-*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
