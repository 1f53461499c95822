"""Gzip: unpacked into a temporary file, piece by piece, because it cannot be read from the middle."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ift_training.data.sources.base import SourceError
from ift_training.data.sources.spool import Spool

_PIECE = 1 << 20


def unpack(path: Path, name: str) -> Spool:
    """The unpacked content. Raises SourceError for what is damaged or does not fit on the disk."""
    return Spool(name, _pieces(path, name))


def _pieces(path: Path, name: str) -> Iterator[bytes]:
    read = 0
    with gzip.open(path, "rb") as file:
        while True:
            try:
                piece = file.read(_PIECE)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise SourceError(
                    f"{name}: the gzip file is damaged or cut off after {read:,} unpacked bytes; get it again"
                ) from error
            if not piece:
                return
            read += len(piece)
            yield piece
