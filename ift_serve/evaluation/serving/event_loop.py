"""An event loop in a thread of its own, for callers that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

_ResultT = TypeVar("_ResultT")


class EventLoopThread:
    """Runs coroutines of callers that block, wherever they are: within another running loop too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="evaluation", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, _ResultT]) -> Future[_ResultT]:
        """Have a coroutine run; its result comes with the future, which cancels it too."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, _ResultT]) -> _ResultT:
        """The result of a coroutine; an interrupt cancels it."""
        future = self.start(coroutine)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread, when what still runs in it has been cancelled and has ended."""
        if not self._loop.is_closed():
            self.start(self._cancel_all()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _cancel_all(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def __enter__(self) -> EventLoopThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
