"""Requests that have not started, each client's in order of rank."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from ift_serve.engine.sequences.sequence import Owner
from ift_serve.sharing.accounts import Account

_RANK = attrgetter("rank")


class WaitingQueue:
    """One queue a client. Ranks order them totally and never change, so a request that returns finds its place."""

    def __init__(self) -> None:
        self._queues: dict[Account, list[Owner]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, request: Owner) -> None:
        """Add a request, new or taken out before."""
        insort(self._queues.setdefault(request.account, []), request, key=_RANK)
        self._length += 1

    def heads(self) -> Iterator[Owner]:
        """The first request of every client."""
        return (queue[0] for queue in self._queues.values())

    def remove(self, request: Owner) -> bool:
        """Take a request out; False when it is not here."""
        queue = self._queues.get(request.account, [])
        index = bisect_left(queue, request.rank, key=_RANK)
        if index == len(queue) or queue[index] is not request:
            return False
        del queue[index]
        self._length -= 1
        if not queue:
            del self._queues[request.account]
        return True
