"""Calls that wait for the engine: at most so many of a caller, up to their deadline, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.errors import EngineError
from ift_serve.sharing.places import Places

_LONGEST_WAIT = 60.0
"""Seconds that a call waits when its deadline is further away, or it has none."""


class WaitingCalls:
    """Calls held until what they wait for has come. ``total``: twice the calls that one caller alone may have here."""

    def __init__(self, total: int) -> None:
        self._places = Places(total)
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Something has changed: have every call look whether it must still wait."""
        self._changed.set()

    async def wait_while(self, must_wait: Callable[[], bool], caller: str, deadline: float | None) -> None:
        """Wait while ``must_wait`` says so, up to ``deadline`` (of the monotonic clock). Raises ``EngineError``."""
        if not self._places.has_room(caller):
            message = f"{self._places.held(caller)} calls of this caller wait for the engine already"
            raise EngineError(FailureKind.OVERLOADED, message, retry_after=1.0)
        self._places.take(caller)
        patience = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(patience, _LONGEST_WAIT)):
                while must_wait():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            if patience < _LONGEST_WAIT:
                message = "the deadline passed while the engine was restarting"
                raise EngineError(FailureKind.DEADLINE, message) from None
            message = "the engine does not come back"
            raise EngineError(FailureKind.UNAVAILABLE, message, retry_after=_LONGEST_WAIT) from None
        finally:
            self._places.leave(caller)
