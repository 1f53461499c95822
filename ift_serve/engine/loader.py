"""Reads adapters beside the engine's loop, in a thread that gives way to it."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_NICENESS = 15


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of one load: a result, or the error that ended it."""

    key: int
    result: Any
    error: Exception | None


class Loader:
    """One thread, one load at a time, in the order asked. ``wake`` is called from the thread when one is done."""

    def __init__(self, read: Callable[..., Any]) -> None:
        self._read = read
        self._asked: queue.SimpleQueue[tuple[int, tuple[str, ...]] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Loaded] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.wake: Callable[[], None] = lambda: None

    def start(self, key: int, *where: str) -> None:
        """Have ``read(*where)`` called; ``finished`` tells of it under ``key``."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="adapter-loader", daemon=True)
            self._thread.start()
        self._asked.put((key, where))

    def finished(self) -> list[Loaded]:
        """Loads that ended since the last time."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._done.get_nowait())
        return found

    def _run(self) -> None:
        _give_way()
        while (asked := self._asked.get()) is not None:
            key, where = asked
            try:
                outcome = Loaded(key, self._read(*where), None)
            except Exception as error:  # whatever is wrong with a directory must end that load, not the engine
                outcome = Loaded(key, None, error)
            self._done.put(outcome)
            self.wake()


def _give_way() -> None:
    """Lower this thread's priority, where the system can (Linux schedules threads one by one)."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
