"""An engine in a thread of this process, behind the same interface: for tests and measurements."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.message_loop import BuildCore, handle, start_failure
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.wire import EngineInput, Shutdown, StepOutputs
from ift_serve.frontend.engine_client import BaseEngineClient, EngineStartError

_log = logging.getLogger(__name__)


class LocalEngine(BaseEngineClient):
    """``build`` runs in the engine's thread, as everything does that touches the model."""

    def __init__(self, config: EngineConfig, build: BuildCore) -> None:
        super().__init__(config)
        self._build = build
        self._inbox: queue.SimpleQueue[EngineInput | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, timeout: float = 120.0) -> None:
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[ModelDescription] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="engine", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(timeout):
                self.model = await ready
        except BaseException as error:
            self._inbox.put(Shutdown())
            self._close_calls()
            if isinstance(error, TimeoutError):
                raise EngineStartError(f"the engine was not ready after {timeout:.0f} seconds") from None
            raise
        self._set_state("ready")

    async def close(self) -> None:
        self._close_calls()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(Shutdown())
            await asyncio.to_thread(thread.join)

    def _send(self, message: EngineInput) -> None:
        self._inbox.put(message)

    def _run(self, ready: asyncio.Future[ModelDescription]) -> None:
        try:
            core, model = self._build(self.config)
        except Exception as error:
            failure = EngineStartError(start_failure(error))
            self._tell(partial(_settle, ready, failure))
            return
        self._tell(partial(_settle, ready, model))
        try:
            self._serve(core)
        except Exception:
            _log.exception("the engine failed")
            self._tell(self._died)

    def _serve(self, core: EngineCore) -> None:
        core.on_wake(lambda: self._inbox.put(None))
        while True:
            if not core.has_work() and not self._receive(core):
                return
            while not self._inbox.empty():
                if not self._receive(core):
                    return
            said = core.step() if core.has_work() else StepOutputs(outputs=[], stats=core.stats())
            self._tell(partial(self._take, said))

    def _receive(self, core: EngineCore) -> bool:
        """Wait for one message and handle it; None only wakes. False for ``Shutdown``."""
        message = self._inbox.get()
        return message is None or handle(core, message)

    def _tell(self, callback: Callable[[], None]) -> None:
        """Run a callback on the event loop; nobody listens once that is closed."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _died(self) -> None:
        self._set_state("closed")
        self._pending.fail_all(FailureKind.UNAVAILABLE, "the engine failed")


def local_engine(config: EngineConfig) -> LocalEngine:
    """An engine with the real model in a thread of this process."""
    return LocalEngine(config, build_core)


def _settle(future: asyncio.Future[ModelDescription], outcome: ModelDescription | Exception) -> None:
    """Set a future that its waiter may have given up."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
