"""Fair shares among callers; priority and age among the requests of each.

Of rows (running sequences) and cache blocks every caller has an equal share, and holds its larger part of the two
(dominant resource fairness, Ghodsi et al. 2011). Callers below their share go before those that have it; among these
and among those, who was served fewer tokens goes first, see ``Accounts``. Whoever is alone may have everything.

Priority never enlarges a share. Among callers a level is worth ``CREDIT`` tokens of service, once: who puts priority on
everything is ahead by so much and then waits like others. Among requests of one caller a level is worth ``HEAD_START``
places of age (``rank``), so that of requests that arrive later at most that many per level overtake an older one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Reversible

from ift_serve.engine.sequences.sequence import Owner, Sequence
from ift_serve.sharing.accounts import Account, Accounts

CREDIT = 64
HEAD_START = 32
QUANTUM = 256
"""Tokens by which a caller that has its share, where callers are more than rows, may be ahead of one that waits."""
TURN = 64
"""Tokens that a sequence gets on before its caller's being ahead costs it its row: computing again is no progress."""


def rank(number: int, priority: int) -> tuple[int, int]:
    """Precedence among requests, least first: age, which priority adds to. It never changes."""
    return number - HEAD_START * priority, number


class FairShares:
    """Compares callers by what they hold and what they were served. ``rows``, ``blocks``: all that there are."""

    def __init__(self, accounts: Accounts, rows: int, blocks: int) -> None:
        self._accounts = accounts
        self._rows = rows
        self._total_blocks = blocks
        self._blocks: Counter[Account] = Counter()

    def measure(self, sequences: Iterable[Sequence]) -> None:
        """Count the blocks that each caller's sequences hold, shared ones for each of them."""
        self._blocks.clear()
        if self._accounts.active > 1:
            for sequence in sequences:
                self._blocks[sequence.owner.account] += len(sequence.table)

    def has_share(self, account: Account, without: Sequence | None = None) -> bool:
        """Whether a caller has its share of rows or of blocks, even ``without`` one of its sequences."""
        rows, blocks = account.rows, self._blocks[account]
        if without is not None:
            rows, blocks = rows - 1, blocks - len(without.table)
        callers = self._accounts.active
        return rows * callers >= self._rows or blocks * callers >= self._total_blocks

    def order(self, request: Owner) -> tuple[bool, float]:
        """Precedence of a caller with its first request, least first."""
        return self.has_share(request.account), _served(request)

    def gives_way(self, running: Sequence, request: Owner) -> bool:
        """Whether a running sequence is preempted so that a request, the first of those that wait, can start.

        Of the same caller for a higher priority. Of another caller where the request's has less than its share and
        this one keeps its own, or, after a turn, is ahead by more than a quantum.
        """
        other = running.owner
        if other.account is request.account:
            return other.priority < request.priority and request.rank < other.rank
        if self.has_share(request.account):
            return False
        if self.has_share(other.account, without=running):
            return True
        had_turn = len(running.tokens) - running.row_start >= TURN
        return had_turn and _served(other) > _served(request) + QUANTUM

    def last_to_spare(self, running: Reversible[Sequence]) -> Sequence | None:
        """The last sequence whose caller keeps its share without it. Never the first one of its caller."""
        if self._accounts.active < 2:
            return None
        return next((one for one in reversed(running) if self.has_share(one.owner.account, without=one)), None)

    def preempted(self, sequence: Sequence) -> None:
        """A sequence loses its blocks."""
        self._blocks[sequence.owner.account] -= len(sequence.table)


def _served(request: Owner) -> float:
    return request.account.served - CREDIT * request.priority
