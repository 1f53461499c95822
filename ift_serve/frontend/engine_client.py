"""The server process's way to the engine: asyncio calls in, streams of outputs back."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from itertools import count
from typing import Literal, Self

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterReply, AdapterState, LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest, StopCandidate
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreOutput, ScoreRequest
from ift_serve.engine.protocol.stats import EngineStats
from ift_serve.engine.protocol.wire import Abort, EngineInput, Profile, StepOutputs
from ift_serve.frontend.adapter_copies import AdapterCopies
from ift_serve.frontend.adapter_index import AdapterIndex
from ift_serve.frontend.engine_totals import EngineTotals
from ift_serve.frontend.errors import EngineError, EngineStartError
from ift_serve.frontend.pending_requests import Call, PendingRequests
from ift_serve.frontend.supervisor import Supervisor
from ift_serve.frontend.waiting_calls import WaitingCalls
from ift_serve.frontend.wanted_adapters import AdapterSource, WantedAdapters

__all__ = ["BaseEngineClient", "EngineClient", "EngineError", "EngineStartError", "State"]

_log = logging.getLogger(__name__)

_OWN_NUMBERS = "/adapter/"
_RESTORED_AT_ONCE = 4

State = Literal["starting", "ready", "restarting", "closed"]


class BaseEngineClient(ABC):
    """What clients have in common, wherever their engine runs. Everything happens on one event loop.

    ``model`` describes the engine once it is ready, ``load`` is its latest snapshot, ``restarts`` counts
    engines that were started after one died, ``hangs`` those that were killed because they made no progress.
    """

    model: ModelDescription

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.stats = EngineStats()
        self.totals = EngineTotals()
        self.state: State = "starting"
        self.restarts = self.hangs = 0
        self._pending = PendingRequests()
        self._callbacks: list[Callable[[State], None]] = []
        self._waiting = WaitingCalls(2 * config.max_waiting)
        self.adapters = AdapterIndex()
        self.wanted = WantedAdapters(self.adapters)
        self._copies: AdapterCopies | None = None
        self._tasks: set[asyncio.Task[AdapterInfo]] = set()
        self._numbers = count()

    @abstractmethod
    async def start(self, timeout: float = 120.0) -> None:
        """Load the model. ``timeout``: seconds. Raises ``EngineStartError``."""

    @abstractmethod
    async def close(self) -> None:
        """End the engine; calls in flight fail with UNAVAILABLE."""

    @abstractmethod
    def _send(self, message: EngineInput) -> None:
        """Queue a message to the engine without blocking."""

    def on_state(self, callback: Callable[[State], None]) -> None:
        """Have ``callback`` called with every new state, on the event loop."""
        self._callbacks.append(callback)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[CandidateOutput]:
        """Outputs as they come; those of one candidate are joined when the consumer is slow.

        Ends with the output that says ``request_finished``, or when every candidate was stopped. Leaving
        early aborts the request. Raises ``EngineError``.
        """
        await self._until_served(request)
        call = self._pending.open(request.request_id, request.sampling.candidates)
        self._send(request)
        try:
            while outputs := await call.outputs():
                for output in outputs:
                    if not call.is_stopped(output.candidate):
                        yield output
        finally:
            self._leave(call)

    async def score(self, request: ScoreRequest) -> ScoreOutput:
        """The scores of all continuations. Raises ``EngineError``."""
        await self._until_served(request)
        call = self._pending.open(request.request_id, 0)
        self._send(request)
        try:
            scores = await call.reply()
            assert isinstance(scores, ScoreOutput)
            return scores
        finally:
            self._leave(call)

    async def load_adapter(
        self, name: str, path: str, shown_path: str = "", root: str = "", version: str = ""
    ) -> AdapterInfo:
        """Load the directory ``path`` as a new version of ``name``; an engine that restarts loads it again.

        ``shown_path`` is what clients know it as; ``root`` and ``version``: where it must lie and which it must be,
        see ``LoadAdapter``. Raises ``EngineError``; the old version then goes on serving. A caller that goes away does
        not end the load.
        """
        await self._until_ready(_OWN_NUMBERS, None, name)
        source = AdapterSource(path, shown_path or path, root, version)
        task = asyncio.create_task(self._load_adapter(name, source))
        self._tasks.add(task)
        task.add_done_callback(self._loaded)
        return await asyncio.shield(task)

    def _loaded(self, task: asyncio.Task[AdapterInfo]) -> None:
        self._tasks.discard(task)
        self._remove_unwanted_copies()
        if not task.cancelled():
            task.exception()  # whoever waits is told; nobody may be waiting any more

    async def _load_adapter(self, name: str, source: AdapterSource) -> AdapterInfo:
        number = self._number()
        path, root = source.path, source.root
        if self._copies is not None and source.version and (kept := self._copies.find(source.version)):
            path, root = str(kept), ""
        place, room = ("", 0) if self._copies is None else self._copies.place()
        message = LoadAdapter(
            request_id=number,
            name=name,
            path=path,
            shown_path=source.shown_path,
            root=root,
            version=source.version,
            keep_in=place,
            keep_bytes=room,
        )
        self.wanted.begin_load(number, name, source)
        return (await self._ask(number, message))[0]

    def _remove_unwanted_copies(self) -> None:
        if self._copies is not None and not self._tasks:
            # Requests may still wait for a version that a newer one has replaced.
            self._copies.retain(self.wanted.versions | {info.version for info in self.adapters.all()})

    def _number(self) -> str:
        """An id that no caller can choose: theirs do not begin with a slash."""
        return f"{_OWN_NUMBERS}{next(self._numbers)}"

    async def unload_adapter(self, reference: str, drain_seconds: float = 60.0) -> list[AdapterInfo]:
        """Refuse new requests for ``name`` or ``name@version``; wait until it is free. Raises ``EngineError``."""
        await self._until_ready(_OWN_NUMBERS, None, reference)
        self.wanted.unload(reference)
        self._remove_unwanted_copies()
        number = self._number()
        message = UnloadAdapter(request_id=number, reference=reference, drain_seconds=drain_seconds)
        return await self._ask(number, message)

    async def _ask(self, number: str, message: EngineInput) -> list[AdapterInfo]:
        call = self._pending.open(number, 0)
        self._send(message)
        try:
            reply = await call.reply()
            assert isinstance(reply, AdapterReply)
            return reply.adapters
        finally:
            self._pending.close(call)

    def _take(self, said: StepOutputs) -> None:
        """One step's outputs."""
        self.stats = said.stats
        self.totals.take(said.stats)
        self._pending.deliver(said)
        self.wanted.take(said)
        if any(info.state is AdapterState.UNLOADED for info in said.adapters):
            self._remove_unwanted_copies()

    def stop_candidate(self, request_id: str, candidate: int) -> None:
        """Free one candidate; nothing more of it comes. Unknown ones are ignored."""
        call = self._pending.get(request_id)
        if call is not None and not call.finished:
            call.stop(candidate)
            self._send(StopCandidate(request_id, candidate))

    def abort(self, request_id: str) -> None:
        """End a call as CANCELLED and free what it holds. Unknown ones are ignored."""
        call = self._pending.get(request_id)
        if call is not None and not call.finished:
            self._send(Abort(request_id))
            call.fail(EngineError(FailureKind.CANCELLED, "the call was aborted"))

    def profile(self) -> None:
        """Have the engine write a trace of its next steps; while there is no engine, nothing happens."""
        if self.state == "ready":
            self._send(Profile())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _leave(self, call: Call) -> None:
        if not call.finished:
            self._send(Abort(call.request_id))
        self._pending.close(call)

    async def _until_served(self, request: GenerateRequest | ScoreRequest) -> None:
        """Wait until the engine is there and has the adapter again. Raises ``EngineError``, also if it is lost."""
        name = request.adapter.partition("@")[0]
        self.wanted.note_asked(name)
        await self._until_ready(request.client, request.deadline, name)
        if (reason := self.wanted.loss(name)) is not None:
            text = f"adapter: {name!r} was lost when the engine restarted: {reason}; load it again"
            raise EngineError(FailureKind.NOT_FOUND, text, "adapter")

    async def _until_ready(self, caller: str, deadline: float | None, adapter: str) -> None:
        """Wait while the engine restarts or loads ``adapter`` again; see ``WaitingCalls``."""
        name = adapter.partition("@")[0]
        if self._must_wait(name):
            with self.wanted.waiting_for(name):
                await self._waiting.wait_while(lambda: self._must_wait(name), caller, deadline)
        if self.state == "closed":
            raise EngineError(FailureKind.UNAVAILABLE, "the engine is closed")

    def _must_wait(self, name: str) -> bool:
        return self.state in ("starting", "restarting") or (self.state == "ready" and self.wanted.is_restoring(name))

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._waiting.wake()
        for callback in self._callbacks:
            try:
                callback(state)
            except Exception:
                _log.exception("a state callback failed")

    def _close_calls(self) -> None:
        self._set_state("closed")
        self._pending.fail_all(FailureKind.UNAVAILABLE, "the engine is closed")


class EngineClient(BaseEngineClient):
    """An engine in a process of its own, restarted when it dies.

    ``worker_module``: what ``python -m`` runs as that process. Delays are in seconds; see ``Supervisor``.
    """

    def __init__(
        self,
        config: EngineConfig,
        worker_module: str,
        *,
        first_restart_delay: float = 0.1,
        longest_restart_delay: float = 10.0,
    ) -> None:
        super().__init__(config)
        self._restore_task: asyncio.Task[None] | None = None
        self._copies = AdapterCopies(config.kept_adapter_bytes)
        self._supervisor = Supervisor(
            config,
            self,
            worker_module,
            first_delay=first_restart_delay,
            longest_delay=longest_restart_delay,
        )

    @property
    def engine_pid(self) -> int | None:
        """The engine's process id; None while there is none."""
        return self._supervisor.pid

    async def start(self, timeout: float = 120.0) -> None:
        try:
            await self._supervisor.start(timeout)
        except BaseException:
            self._close_calls()
            raise

    async def close(self) -> None:
        self._stop_restoring()
        self._close_calls()
        await self._supervisor.close()
        assert self._copies is not None
        await asyncio.to_thread(self._copies.close)

    def _stop_restoring(self) -> None:
        if self._restore_task is not None:
            self._restore_task.cancel()
            self._restore_task = None

    def _send(self, message: EngineInput) -> None:
        self._supervisor.send(message)

    def engine_ready(self, model: ModelDescription) -> None:
        """The supervisor has an engine; the first, or one that replaces a dead one."""
        if self.state == "closed":
            return
        self.model = model
        self.totals.begin()
        if self.state == "restarting":
            self.restarts += 1
        self._set_state("ready")
        self._restore_task = asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        """Load again what a dead engine had; calls that name one of them wait for it, others do not."""
        await asyncio.gather(*(self._restore_some() for _ in range(_RESTORED_AT_ONCE)))
        if lost := self.wanted.lost:
            _log.error("%d adapters could not be loaded again: %s", len(lost), ", ".join(sorted(lost)[:20]))

    async def _restore_some(self) -> None:
        while (found := self.wanted.to_restore()) is not None:
            try:
                await self._load_adapter(*found)
            except EngineError as error:
                if error.kind is FailureKind.UNAVAILABLE:
                    return  # this engine died too; the next one begins anew
            self._waiting.wake()

    def engine_said(self, said: StepOutputs) -> None:
        """One step's outputs."""
        self._take(said)

    def engine_has_work(self) -> bool:
        """Whether any call waits for tokens or scores."""
        return self._pending.any_unfinished(besides=_OWN_NUMBERS)

    def engine_died(self, how: str, retry_after: float, *, hung: bool) -> None:
        """The engine process ended, or was ended because it was ``hung``, and will be started again."""
        self.hangs += hung
        _log.error("the engine process ended (%s); %d calls in flight fail", how, len(self._pending))
        self.stats = EngineStats()
        self._stop_restoring()
        self._set_state("restarting")
        self.wanted.engine_died()
        self._pending.fail_all(FailureKind.UNAVAILABLE, "the engine is restarting", retry_after)
