"""Tells an engine that is stuck from one that is slow."""

from __future__ import annotations

import time
from collections.abc import Callable

from ift_serve.engine.protocol.progress import ProgressView
from ift_serve.system.process_usage import Usage, usage

_LONGEST_COMPILATION = 600.0
_LOOKS = 10
_Mark = tuple[object, ...]


class HangDetector:
    """Looks at one engine process from time to time. ``look`` must be called every ``interval`` seconds.

    While the engine starts, and while it makes machine code, computing and reading count as progress. Otherwise only
    what it says it has done does: parts of steps while requests wait for answers, else also that its loop comes by. It
    may take ``patience`` seconds for that, or longer on a machine on which parts of steps were seen to take long. Time
    that the looking process has itself slept through counts for little, so that both may be stopped and go on together.
    """

    def __init__(
        self,
        progress: ProgressView,
        pid: int,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[int], Usage] = usage,
    ) -> None:
        self._progress = progress
        self._pid = pid
        self._patience = patience
        self._clock = clock
        self._used = used
        self.interval = patience / _LOOKS
        self._mark: _Mark = ()
        self._looked = clock()
        self._compiling_since: float | None = None
        self.stuck = 0.0
        """Seconds without progress."""

    def look(self, *, starting: bool, has_work: bool) -> bool:
        """Whether the process is taken for hung. ``has_work``: whether requests wait for its answers."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, 2 * self.interval), now
        mark = self._take_mark(now, starting, has_work)
        self.stuck = self.stuck + passed if mark == self._mark else 0.0
        self._mark = mark
        return self.stuck > max(self._patience, self._progress.allowance)

    def _take_mark(self, now: float, starting: bool, has_work: bool) -> _Mark:
        progress = self._progress
        if not progress.compiling:
            self._compiling_since = None
        elif self._compiling_since is None:
            self._compiling_since = now
        since = self._compiling_since
        busy = starting or (since is not None and now - since < _LONGEST_COMPILATION)
        return (progress.work, None if has_work else progress.idle, self._used(self._pid) if busy else None)
