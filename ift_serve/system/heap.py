"""The C heap: what was freed goes back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's function; None with another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim  # type: ignore[no-any-return]
    except (OSError, AttributeError):
        return None


def trim_heap() -> None:
    """Give back pages that hold nothing.

    glibc keeps freed memory below the last block in use: adapters that come and go would leave a megabyte of fragments
    a minute. It takes some milliseconds, without the interpreter's lock.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
