"""Requests that have not started: by priority, then fair share per client, then age.

Fair share is start-time fair queueing over tokens computed (Goyal, Vin and Cheng 1996): the client
served least goes first, and one that returns after a pause is lifted to the level of those now being
served, so that it can neither hoard credit nor hold others up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ift_serve.engine.request import Request

_REMEMBERED_CLIENTS = 1024


class Account:
    """Tokens computed for one client, above the level it entered at."""

    __slots__ = ("client", "requests", "served")

    def __init__(self, client: str) -> None:
        self.client = client
        self.served = 0
        self.requests = 0


class Accounts:
    """The clients' accounts; those without requests are forgotten, oldest first."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self.level = 0

    def open(self, client: str) -> Account:
        """The account for one more request of ``client``."""
        account = self._accounts.pop(client, None) or Account(client)
        self._accounts[client] = account
        if account.requests == 0:
            account.served = max(account.served, self.level)
        account.requests += 1
        return account

    def note_admission(self, account: Account) -> None:
        """A request of this account starts now: those who return from a pause enter at its level."""
        self.level = max(self.level, account.served)

    def close(self, account: Account) -> None:
        """One request less."""
        account.requests -= 1
        if len(self._accounts) > _REMEMBERED_CLIENTS:
            idle = next((name for name, other in self._accounts.items() if other.requests == 0), None)
            if idle is not None:
                del self._accounts[idle]


class WaitingQueue:
    """Requests in order of admission."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, deque[Request]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, request: Request) -> None:
        """Append behind the client's other requests."""
        self._queue(request).append(request)
        self._length += 1

    def push_back_first(self, request: Request) -> None:
        """Return a request that was taken out, to the front of its client's."""
        self._queue(request).appendleft(request)
        self._length += 1

    def head(self) -> Request | None:
        """The request to admit next."""
        if not self._length:
            return None
        queues = self._levels[max(self._levels)]
        heads = (queue[0] for queue in queues.values())
        return min(heads, key=lambda request: (request.account.served, request.number))

    def remove(self, request: Request) -> bool:
        """Take a request out; False when it is not here."""
        queues = self._levels.get(request.priority)
        queue = queues.get(request.account.client) if queues is not None else None
        if queues is None or queue is None or request not in queue:
            return False
        queue.remove(request)
        self._length -= 1
        if not queue:
            del queues[request.account.client]
            if not queues:
                del self._levels[request.priority]
        return True

    def _queue(self, request: Request) -> deque[Request]:
        return self._levels.setdefault(request.priority, {}).setdefault(request.account.client, deque())
