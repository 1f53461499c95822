"""Which requests run out of time, and when."""

from __future__ import annotations

import heapq

from ift_serve.engine.core.request import Request

_SPARE = 64
"""Entries of ended requests kept beyond the live ones; past it they are swept out, and their prompts with them."""


class Deadlines:
    """Requests with a deadline, the next to pass first. Times are of the engine's clock, in seconds."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Request]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: Request) -> None:
        """Watch a request; one without a deadline is ignored."""
        if request.deadline is not None:
            heapq.heappush(self._entries, (request.deadline, request.number, request))

    def take_passed(self, now: float) -> list[Request]:
        """Requests in flight whose deadline has passed; they are watched no more."""
        passed = []
        while self._entries and self._entries[0][0] <= now:
            request = heapq.heappop(self._entries)[2]
            if not request.done:
                passed.append(request)
        return passed

    def sweep(self, live: int) -> None:
        """Forget ended requests once they are many more than the ``live`` ones."""
        if len(self._entries) > 2 * live + _SPARE:
            self._entries = [entry for entry in self._entries if not entry[2].done]
            heapq.heapify(self._entries)
