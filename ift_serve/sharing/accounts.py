"""Accounts of callers: the service each has received, by which those who received least go first.

Fair queueing's virtual time (Demers, Keshav and Shenker 1989; Parekh and Gallager 1993), with tokens charged as they
are computed: it goes on by the tokens of a step divided by the callers in flight. A caller that has nothing waiting is
owed nothing: its next request enters at the virtual time at least. So pausing earns no credit, newcomers get none, and
whoever waits is overtaken only by those who arrive before virtual time has passed its account.
"""

from __future__ import annotations

_REMEMBERED_CLIENTS = 1024


class Account:
    """One client. ``served``: virtual tokens; ``requests``: in flight; ``rows``: its running sequences."""

    __slots__ = ("client", "requests", "rows", "served")

    def __init__(self, client: str) -> None:
        self.client = client
        self.served = 0.0
        self.requests = 0
        self.rows = 0


class Accounts:
    """The clients' accounts and the virtual time; accounts without requests are forgotten, oldest first."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self.virtual_time = 0.0
        self.active = 0
        """Clients that have requests in flight."""

    def open(self, client: str, *, has_waiting: bool) -> Account:
        """The account for one more request. ``has_waiting``: whether the client has requests waiting already."""
        account = self._accounts.pop(client, None) or Account(client)
        self._accounts[client] = account
        if not has_waiting:
            account.served = max(account.served, self.virtual_time)
        self.active += account.requests == 0
        account.requests += 1
        return account

    def advance(self, tokens: int) -> None:
        """A step has computed so many tokens, which their accounts have been charged."""
        self.virtual_time += tokens / max(1, self.active)

    def close(self, account: Account) -> None:
        """One request less."""
        account.requests -= 1
        self.active -= account.requests == 0
        if len(self._accounts) > _REMEMBERED_CLIENTS:
            idle = next((name for name, other in self._accounts.items() if other.requests == 0), None)
            if idle is not None:
                del self._accounts[idle]
