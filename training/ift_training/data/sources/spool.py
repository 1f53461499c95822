"""A temporary file that holds what cannot be read at any place: unpacked or converted records."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path

from ift_training.data.sources.base import SourceError

_SPARE = 1 << 28
"""Bytes of the disk that are left for others."""
_STEP = 1 << 24
"""Bytes between two looks at the disk."""


class Spool:
    """Filled once with ``content``; the file goes when its owner does. Copies in other processes only read it.

    Raises SourceError when the disk has no room; ``name`` is what is unpacked.
    """

    def __init__(self, name: str, content: Iterable[bytes]) -> None:
        handle, path = tempfile.mkstemp(prefix="ift-serve-records-")
        self.path = Path(path)
        self._finalizer = weakref.finalize(self, _remove, path, os.getpid())
        try:
            _fill(handle, content)
        except OSError as error:
            raise SourceError(
                f"{name}: cannot be unpacked into {self.path.parent}: {error.strerror or error}; set TMPDIR to a place "
                "with more room"
            ) from error

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}


def _fill(handle: int, content: Iterable[bytes]) -> None:
    unchecked = _STEP
    with os.fdopen(handle, "wb") as file:
        for piece in content:
            unchecked += len(piece)
            if unchecked >= _STEP:
                unchecked, disk = 0, os.fstatvfs(handle)
                if disk.f_bavail * disk.f_frsize < _SPARE:
                    raise OSError("the disk is nearly full")
            file.write(piece)


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            os.unlink(path)
