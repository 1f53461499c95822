"""Shares of the event loop for work that grows with what a caller asks for."""

from __future__ import annotations

import asyncio
import time

_SECONDS = 0.003
FREE_ENTRIES = 256
"""Tokens, alternatives and scores that a call handles before it waits for a turn: what is small goes at once."""


class LoopShares:
    """Work of all calls, cut in short pieces, of which each round of the event loop does a few milliseconds.

    However many calls have large answers, what is new for others waits for one such share, not for an answer. Calls
    take their turns in the order in which they ask.
    """

    def __init__(self) -> None:
        self._order = asyncio.Lock()
        self._round: asyncio.Event | None = None
        """Set with the end of a round that has had a turn."""
        self._share_ends = 0.0

    async def next(self) -> None:
        """Return when the next piece may be done."""
        async with self._order:
            if self._round is not None and time.perf_counter() >= self._share_ends:
                await self._round.wait()
            if self._round is None:
                self._round = asyncio.Event()
                self._share_ends = time.perf_counter() + _SECONDS
                asyncio.get_running_loop().call_soon(self._end_round)

    def _end_round(self) -> None:
        ended, self._round = self._round, None
        if ended is not None:
            ended.set()


class LoopShare:
    """The work of one call, in turns with that of others."""

    def __init__(self, loop_shares: LoopShares) -> None:
        self._loop_shares = loop_shares
        self._entries = 0

    async def take(self, entries: int) -> None:
        """Return when a piece of so many entries may be done."""
        self._entries += entries
        if self._entries > FREE_ENTRIES:
            await self._loop_shares.next()
            self._entries = 0
