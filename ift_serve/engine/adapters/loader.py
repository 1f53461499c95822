"""Reads adapters beside the engine's loop, in threads that give way to it."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ift_serve.system.heap import trim_heap

_NICENESS = 15
_THREADS = 4
_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of one load: a result, or the error that ended it."""

    key: int
    result: Any
    error: Exception | None


@dataclass(slots=True, eq=False)
class _Reading:
    """What one thread reads: ``used`` is its computing time at the last look, ``since`` when that last grew."""

    key: int
    clock: int
    used: float
    since: float


class Loader:
    """A few threads that take loads in the order asked. ``wake`` is called from a thread when one is done.

    A load whose thread neither computes nor gets anything from its disk for ``patience`` seconds is given up.
    """

    def __init__(self, read: Callable[..., Any], patience: float) -> None:
        self._read = read
        self._patience = patience
        self._asked: queue.SimpleQueue[tuple[int, tuple[Any, ...]]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Loaded] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._reading: dict[int, _Reading] = {}
        self._threads = 0
        self._waiting = 0
        self._read_something = False
        """Since the heap was last trimmed."""
        self.wake: Callable[[], None] = lambda: None

    def start(self, key: int, *what: Any) -> None:
        """Have ``read(*what)`` called; ``finished`` tells of it under ``key``."""
        with self._lock:
            self._waiting += 1
            if self._threads < min(_THREADS, self._waiting + len(self._reading)):
                if not self._threads:
                    threading.Thread(target=self._watch, name="adapter-loads", daemon=True).start()
                self._start_thread()
        self._asked.put((key, what))

    def finished(self) -> list[Loaded]:
        """Loads that ended since the last time."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._done.get_nowait())
        return found

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._run, name="adapter-loader", daemon=True).start()

    def _run(self) -> None:
        _give_way()
        own = time.pthread_getcpuclockid(threading.get_ident())
        while True:
            key, what = self._asked.get()
            with self._lock:
                self._waiting -= 1
                self._reading[key] = _Reading(key, own, 0.0, time.monotonic())
            try:
                outcome = Loaded(key, self._read(*what), None)
            except Exception as error:  # whatever is wrong with a directory must end that load, not the engine
                outcome = Loaded(key, None, error)
            with self._lock:
                if self._reading.pop(key, None) is None:
                    return  # given up meanwhile, and another thread does this one's work
            self._tell(outcome)

    def _tell(self, outcome: Loaded) -> None:
        self._read_something = True
        self._done.put(outcome)
        self.wake()

    def _watch(self) -> None:
        while True:
            time.sleep(self._patience / _LOOKS)
            if self._read_something:
                self._read_something = False
                trim_heap()  # versions that others replaced are gone by now
            now = time.monotonic()
            with self._lock:
                stuck = [reading for reading in self._reading.values() if self._is_stuck(reading, now)]
                for reading in stuck:
                    del self._reading[reading.key]
                    self._threads -= 1
                    self._start_thread()
            for reading in stuck:
                text = f"nothing could be read of it for {self._patience:g} seconds; is its disk or network there?"
                self._tell(Loaded(reading.key, None, TimeoutError(text)))

    def _is_stuck(self, reading: _Reading, now: float) -> bool:
        used = time.clock_gettime(reading.clock)
        if used != reading.used:
            reading.used, reading.since = used, now
        return now - reading.since > self._patience


def _give_way() -> None:
    """Lower this thread's priority, where the system can (Linux schedules threads one by one)."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
