"""Threads in which text is rendered and tokenised, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_INLINE_BYTES, _SHORT_BYTES = 1024, 64 * 1024
_SHORT_THREADS, _LONG_THREADS = 2, 1


class TextWorkers:
    """Runs work on text of a known size: the shortest at once, the rest in two lanes of few threads.

    Long texts have a lane of their own, one after the other, so that they hold up neither short ones nor the memory
    of the process. A caller that leaves takes its waiting work along; what runs already is bounded by its size, and
    nobody waits for it.
    """

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(_SHORT_THREADS, thread_name_prefix="text")
        self._long = ThreadPoolExecutor(_LONG_THREADS, thread_name_prefix="long-text")

    async def run(self, size: int, work: Callable[[], _T]) -> _T:
        """The result of the work; ``size``: bytes of text that it reads."""
        if size <= _INLINE_BYTES:
            return work()
        lane = self._short if size <= _SHORT_BYTES else self._long
        return await asyncio.get_running_loop().run_in_executor(lane, work)
