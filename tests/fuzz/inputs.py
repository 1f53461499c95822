"""Inputs of several files in one run of bytes, as the fuzzer changes them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

SCRATCH = "IFT_FUZZ_SCRATCH"
"""Names the directory for files of a process that ends without Python's own end, as libFuzzer's does."""
SEPARATOR = b"\n====\n"


def parts(data: bytes, count: int) -> list[bytes]:
    """So many parts; those that are not there are empty."""
    found = data.split(SEPARATOR, count - 1)
    return found + [b""] * (count - len(found))


def joined(contents: Sequence[bytes]) -> bytes:
    """The other way round."""
    return SEPARATOR.join(contents)


def scratch() -> Path:
    """A new directory for what a target writes; in memory where there is such a place, and gone at the end."""
    place = os.environ.get(SCRATCH) or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    made = Path(tempfile.mkdtemp(prefix="ift-fuzz-", dir=place))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
