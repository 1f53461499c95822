"""Progress of an engine process, on a page of memory shared with the process that started it.

The page is written without a system call and read without the engine's help: a stopped engine, and one whose
interpreter is held up, show as what they are.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
from collections.abc import Iterator

WARM_UP_TOKENS = 8
"""Of the prompt that is computed before serving, from which the time of larger ones is guessed."""
_BYTES = mmap.PAGESIZE
_WORK, _IDLE, _COMPILING, _SLOWEST = range(4)
_STRETCH = 8
"""A part of a step may take so many times the computing time of the slowest one so far."""
_LONGEST_STRETCH = 300.0


def open_page() -> int:
    """A descriptor of a new page that has no name in any directory; the caller closes it."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("ift-serve-progress", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, _BYTES)
    return handle


class Progress:
    """The engine's side. ``handle``: descriptor of a page; None: nobody looks.

    ``work`` is called where something was really done: a layer, a chunk of logits, a step. ``idle`` where the loop has
    found nothing to do. Neither says merely that a thread lives.
    """

    def __init__(self, handle: int | None = None) -> None:
        page = mmap.mmap(-1 if handle is None else handle, _BYTES)
        self._words = memoryview(page).cast("Q")
        self._begun = time.thread_time()

    def begin(self) -> None:
        """A step begins: what it takes until ``work`` is measured from here. In the thread that runs the steps."""
        self._words[_COMPILING] = 0  # a compilation that failed may not have said that it ended
        self._begun = time.thread_time()

    def work(self) -> None:
        """A part of a step is done."""
        now = time.thread_time()
        words = self._words
        words[_WORK] += 1
        micros = int((now - self._begun) * 1e6)
        if micros > words[_SLOWEST]:
            words[_SLOWEST] = micros
        self._begun = now

    def idle(self) -> None:
        """There is nothing to do."""
        self._words[_IDLE] += 1

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Machine code is made in the block, which may take minutes: computing time counts as progress meanwhile."""
        self.compilation_begins()
        try:
            yield
        finally:
            self.compilation_ends()

    def compilation_begins(self) -> None:
        """See ``compiling``; may be nested."""
        self._words[_COMPILING] += 1

    def compilation_ends(self) -> None:
        """The end of the last ``compilation_begins``."""
        self._words[_COMPILING] = max(0, self._words[_COMPILING] - 1)
        self._begun = time.thread_time()

    def expect(self, measured: Progress, times: float) -> None:
        """Parts of steps may be ``times`` as large as the largest that ``measured`` has seen."""
        self._words[_SLOWEST] = int(measured._words[_SLOWEST] * times / _STRETCH)


class ProgressView:
    """The other side of a page. Takes over the descriptor."""

    def __init__(self, handle: int) -> None:
        self._page = mmap.mmap(handle, _BYTES, prot=mmap.PROT_READ)
        os.close(handle)

    def _word(self, index: int) -> int:
        return int.from_bytes(self._page[8 * index : 8 * index + 8], "little")

    @property
    def work(self) -> int:
        """Parts of steps done."""
        return self._word(_WORK)

    @property
    def idle(self) -> int:
        """Times that the loop found nothing to do."""
        return self._word(_IDLE)

    @property
    def compiling(self) -> bool:
        """Whether machine code is being made."""
        return bool(self._word(_COMPILING))

    @property
    def allowance(self) -> float:
        """Seconds that a part of a step may take on a machine as slow as this one has shown itself."""
        return min(self._word(_SLOWEST) * 1e-6 * _STRETCH, _LONGEST_STRETCH)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
