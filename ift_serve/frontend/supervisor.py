"""Keeps an engine process alive: notices its death at once and starts another, less and less eagerly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import zmq.asyncio

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.wire import EngineInput, StepOutputs
from ift_serve.frontend.errors import EngineStartError
from ift_serve.frontend.worker_process import WorkerProcess

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Is told what happens to the engine, on the event loop."""

    def engine_ready(self, model: ModelDescription) -> None: ...
    def engine_said(self, said: StepOutputs) -> None: ...
    def engine_has_work(self) -> bool: ...
    def engine_died(self, how: str, retry_after: float, *, hung: bool) -> None: ...


class Supervisor:
    """Owns the engine process of one server process. ``start`` once, ``close`` once.

    ``module``: what ``python -m`` runs as an engine process. The delay before a restart doubles from ``first_delay`` to
    ``longest_delay`` (seconds) while engines die without having computed a step, and begins anew once one has. One that
    makes no progress for the configuration's ``patience`` is killed; see ``hang_detector``.
    """

    def __init__(
        self,
        config: EngineConfig,
        watcher: Watcher,
        module: str,
        *,
        first_delay: float = 0.1,
        longest_delay: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._watcher = watcher
        self._module = module
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._clock = clock
        self._start_timeout = 0.0
        self._start_seconds = 0.0
        self._delay = first_delay
        self._context = zmq.asyncio.Context()
        self._child: WorkerProcess | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The engine's process id; None while there is none."""
        return self._child.pid if self._child is not None else None

    async def start(self, timeout: float) -> None:
        """Start the engine and keep it alive. Raises ``EngineStartError`` when the first start fails."""
        self._start_timeout = timeout
        try:
            await self._spawn()
        except BaseException:
            await self._end_child()
            self._context.term()
            raise
        self._task = asyncio.create_task(self._keep_alive(), name="engine supervisor")

    def send(self, message: EngineInput) -> None:
        """Send to the engine that is up; lost when there is none."""
        if self._child is not None:
            self._child.send(message)

    async def close(self) -> None:
        """End the engine for good."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        await self._end_child()
        self._context.term()

    async def _spawn(self) -> None:
        started = self._clock()
        child = self._child = await WorkerProcess.spawn(self._context, self._config, self._module)
        model = await child.ready(self._start_timeout)
        self._start_seconds = self._clock() - started
        self._watcher.engine_ready(model)

    async def _keep_alive(self) -> None:
        while True:
            if self._child is not None:
                child = self._child
                try:
                    await child.read(self._said, self._watcher.engine_has_work)
                except Exception:
                    _log.exception("the engine's outputs cannot be taken; it is ended")
                retry_after = self._delay + self._start_seconds
                self._watcher.engine_died(child.exit_text(), retry_after, hung=child.hung)
                await self._end_child()
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, self._longest_delay)
            try:
                await self._spawn()
            except (EngineStartError, OSError) as error:
                _log.error("the engine did not start again, next attempt in %.1f s: %s", self._delay, error)
                await self._end_child()

    def _said(self, said: StepOutputs) -> None:
        if said.stats.steps:
            self._delay = self._first_delay
        self._watcher.engine_said(said)

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()
