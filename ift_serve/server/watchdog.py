"""Notices an event loop that is blocked: nobody is answered meanwhile, not even health checks."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

_log = logging.getLogger(__name__)


class LoopWatchdog:
    """Says so in the log, with the stacks of all threads, whenever the loop does nothing for ``limit`` seconds.

    Stacks hold names of functions and lines of source, never values. ``on_blocked`` is told the seconds once a
    blockage is over; it is called on the loop.
    """

    def __init__(self, on_blocked: Callable[[float], None], limit: float = 1.0) -> None:
        self._on_blocked = on_blocked
        self._limit = limit
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the running loop."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, args=(loop,), name="loop watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopped.wait(self._limit / 4):
            answered = threading.Event()
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(answered.set)
                if answered.wait(self._limit):
                    continue
                _log.error("the event loop has been blocked for %g s", self._limit, extra={"stacks": _stacks()})
                while not answered.wait(self._limit):
                    if self._stopped.is_set():
                        return
                loop.call_soon_threadsafe(self._on_blocked, time.monotonic() - asked)
            except RuntimeError:
                return  # the loop is closed


def _stacks() -> dict[str, list[str]]:
    """Function and line of every frame, innermost last, by thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, str(ident)): [
            f"{entry.filename}:{entry.lineno} {entry.name}" for entry in traceback.extract_stack(frame)
        ]
        for ident, frame in sys._current_frames().items()
    }
