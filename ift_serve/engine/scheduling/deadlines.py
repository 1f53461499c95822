"""Deadlines of requests, in a heap."""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar

_SPARE = 64
"""Entries of ended requests kept beyond the live ones; past it they are swept out, and their prompts with them."""


class Expiring(Protocol):
    """A request. ``deadline``: seconds; None: it has none. ``done``: it is over, whatever its deadline."""

    number: int
    deadline: float | None
    done: bool


_Request = TypeVar("_Request", bound=Expiring)


class Deadlines(Generic[_Request]):
    """Requests with a deadline, the next to pass first. Times are of the engine's clock, in seconds."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, _Request]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: _Request) -> None:
        """Watch a request; one without a deadline is ignored."""
        if request.deadline is not None:
            heapq.heappush(self._entries, (request.deadline, request.number, request))

    def take_passed(self, now: float) -> list[_Request]:
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
