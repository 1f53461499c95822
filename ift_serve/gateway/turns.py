"""Turns for what blocks the event loop: large bodies, one at a time, with as much time for others after each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

_SMALL = 64 * 1024
"""Bytes that are parsed in a few milliseconds whatever they hold."""

ResultT = TypeVar("ResultT")


class Turns:
    """Work of the requests of all callers."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, size: int, work: Callable[[], ResultT]) -> ResultT:
        """The result of ``work``, which takes time in proportion to ``size`` bytes."""
        if size <= _SMALL:
            return work()
        async with self._turn:
            begun = time.perf_counter()
            try:
                return work()
            finally:
                await asyncio.sleep(time.perf_counter() - begun)
