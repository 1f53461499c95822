"""Stages of a process's start: logged while one takes long, and how long each took at the end."""

from __future__ import annotations

import logging
import os
import threading
import time
from types import TracebackType

_log = logging.getLogger(__name__)

TOLD_AFTER = 2.0
"""Seconds after which a stage that still runs is told."""


def process_age() -> float:
    """Seconds since this process was started; 0.0 where that cannot be told."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    except OSError:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


class StartStages:
    """A context in which one stage follows the other; the first is what the process did before, such as importing.

    At its end the seconds of all stages are logged, unless the start failed.
    """

    def __init__(self, first: str) -> None:
        self.seconds: dict[str, float] = {first: process_age()}
        self._name: str | None = None
        self._begun = time.monotonic()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> StartStages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is None:
            _log.info("started", extra={"seconds": {name: round(taken, 2) for name, taken in self.seconds.items()}})

    def begin(self, name: str) -> None:
        """The next stage; it is told if it takes longer than two seconds."""
        self._end()
        self._name, self._begun = name, time.monotonic()
        self._timer = threading.Timer(TOLD_AFTER, _log.info, ("starting: %s", name))
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + time.monotonic() - self._begun
            self._name = None
