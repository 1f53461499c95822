"""Imports of libraries that bring thousands of modules."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Garbage is not looked for in this context, nor ever after in what it has made: all of it stays.

    The collector looks at everything again and again while it grows: a seventh to a fifth of the time that torch and
    transformers take to be imported.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
