"""The front's way to the engine: asyncio calls in, streams of outputs back."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, Self

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterReply, LoadAdapter, UnloadAdapter
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
from ift_serve.sharing.places import Places

__all__ = ["BaseEngineClient", "EngineClient", "EngineError", "EngineStartError", "State"]

_log = logging.getLogger(__name__)

_OWN_NUMBERS = "/adapter/"
_RESTORED_AT_ONCE = 4
_REMEMBERED_NAMES = 4096
_LONGEST_WAIT = 60.0
"""Seconds that a call waits for a restarting engine when its deadline is further away, or it has none."""


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """Where an adapter came from, what clients know that as, and the version it was; see ``LoadAdapter``."""

    path: str
    shown_path: str
    root: str
    version: str = ""


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
        self._changed = asyncio.Event()
        self._crowd = Places(2 * config.max_waiting)
        self.adapters = AdapterIndex()
        self._wanted: dict[str, AdapterSource] = {}
        self._unloads: Counter[str] = Counter()
        self._restoring: set[str] = set()
        self._asked: dict[str, None] = {}
        self._waiting_for: Counter[str] = Counter()
        self.lost: dict[str, str] = {}
        """Adapters that a restarted engine could not load again, and why; until they are loaded or unloaded."""
        self.losses = 0
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
        await self._until_ready(request.client, request.deadline, request.adapter)
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
        await self._until_ready(request.client, request.deadline, request.adapter)
        call = self._pending.open(request.request_id, 0)
        self._send(request)
        try:
            scores = await call.reply()
            assert isinstance(scores, ScoreOutput)
            return scores
        finally:
            self._leave(call)

    async def load_adapter(self, name: str, path: str, shown_path: str = "", root: str = "") -> AdapterInfo:
        """Load the directory ``path`` as a new version of ``name``; an engine that restarts loads it again.

        ``shown_path`` is what clients know it as; ``root``: where it must lie, see ``LoadAdapter``. Raises
        ``EngineError``; the old version then goes on serving. A caller that goes away does not end the load.
        """
        await self._until_ready(_OWN_NUMBERS, None)
        source = AdapterSource(path, shown_path or path, root)
        task = asyncio.create_task(self._load_and_note(name, source))
        self._tasks.add(task)
        task.add_done_callback(self._loaded)
        return await asyncio.shield(task)

    def _loaded(self, task: asyncio.Task[AdapterInfo]) -> None:
        self._tasks.discard(task)
        self._clear_spool()
        if not task.cancelled():
            task.exception()  # whoever waits is told; nobody may be waiting any more

    async def _load_and_note(self, name: str, source: AdapterSource) -> AdapterInfo:
        unloads = self._unloads[name]
        info = await self._load_adapter(name, source)
        if self._unloads[name] == unloads:
            self._wanted[name] = replace(source, version=info.version)
            self.lost.pop(name, None)
        return info

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
        return (await self._ask(number, message))[0]

    def _clear_spool(self) -> None:
        if self._copies is not None and not self._tasks:
            self._copies.retain({source.version for source in self._wanted.values()})

    def _number(self) -> str:
        """An id that no caller can choose: theirs do not begin with a slash."""
        return f"{_OWN_NUMBERS}{next(self._numbers)}"

    async def unload_adapter(self, reference: str, drain_seconds: float = 60.0) -> list[AdapterInfo]:
        """Refuse new requests for ``name`` or ``name@version``; wait until it is free. Raises ``EngineError``."""
        await self._until_ready(_OWN_NUMBERS, None)
        name, _, version = reference.partition("@")
        self.lost.pop(name, None)
        newest = self.adapters.find(name)
        if newest is not None and version in ("", newest.version):
            self._wanted.pop(name, None)
            self._unloads[name] += 1
            self._clear_spool()
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

    def _adapters_changed(self, changes: list[AdapterInfo]) -> None:
        for info in changes:
            self.adapters.change(info)

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

    def _must_wait(self, name: str) -> bool:
        return self.state in ("starting", "restarting") or (self.state == "ready" and name in self._restoring)

    async def _until_ready(self, caller: str, deadline: float | None, adapter: str = "") -> None:
        """Wait while the engine restarts or loads ``adapter`` again.

        Among at most so many calls of the same caller, up to the deadline, and not for ever.
        """
        name = adapter.partition("@")[0]
        if name:
            self._asked.pop(name, None)
            self._asked[name] = None
            if len(self._asked) > _REMEMBERED_NAMES:
                del self._asked[next(iter(self._asked))]
        if self.state != "ready" or name in self._restoring:
            await self._wait_until_ready(caller, deadline, name)
        if name in self.lost:
            text = f"adapter: {name!r} was lost when the engine restarted: {self.lost[name]}; load it again"
            raise EngineError(FailureKind.NOT_FOUND, text, "adapter")

    async def _wait_until_ready(self, caller: str, deadline: float | None, name: str) -> None:
        if not self._crowd.has_room(caller):
            message = f"{self._crowd.held(caller)} calls of this caller wait for the engine already"
            raise EngineError(FailureKind.OVERLOADED, message, retry_after=1.0)
        self._crowd.take(caller)
        self._waiting_for[name] += 1
        patience = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(patience, _LONGEST_WAIT)):
                while self._must_wait(name):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            if patience < _LONGEST_WAIT:
                message = "the deadline passed while the engine was restarting"
                raise EngineError(FailureKind.DEADLINE, message) from None
            message = "the engine does not come back"
            raise EngineError(FailureKind.UNAVAILABLE, message, retry_after=_LONGEST_WAIT) from None
        finally:
            self._crowd.leave(caller)
            self._waiting_for[name] -= 1
        if self.state == "closed":
            raise EngineError(FailureKind.UNAVAILABLE, "the engine is closed")

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._changed.set()
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
        self._restoring = set(self._wanted)
        self._set_state("ready")
        if self._restoring:
            self._restore_task = asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        """Load again what a dead engine had; calls that name one of them wait for it, others do not."""
        begun: set[str] = set()
        await asyncio.gather(*(self._restore_some(begun) for _ in range(_RESTORED_AT_ONCE)))
        if self.lost:
            _log.error("%d adapters could not be loaded again: %s", len(self.lost), ", ".join(sorted(self.lost)[:20]))

    async def _restore_some(self, begun: set[str]) -> None:
        while (name := self._next_to_restore(begun)) is not None:
            begun.add(name)
            source = self._wanted.get(name)
            try:
                if source is not None:
                    await self._load_adapter(name, source)
            except EngineError as error:
                if error.kind is FailureKind.UNAVAILABLE:
                    return  # this engine died too; the next one begins anew
                if self._wanted.get(name) is source:
                    self._lose(name, error.message)
            self._restoring.discard(name)
            self._changed.set()

    def _next_to_restore(self, begun: set[str]) -> str | None:
        """Of what is left, what most calls wait for, then what was asked for last."""
        left = self._restoring - begun
        last = {name: number for number, name in enumerate(self._asked)}
        return max(left, key=lambda name: (self._waiting_for[name], last.get(name, -1)), default=None)

    def _lose(self, name: str, reason: str) -> None:
        _log.error("adapter %s could not be loaded again: %s", name, reason)
        self._wanted.pop(name, None)
        self.lost[name] = reason
        self.losses += 1

    def engine_said(self, said: StepOutputs) -> None:
        """One step's outputs."""
        self.stats = said.stats
        self.totals.take(said.stats)
        self._pending.deliver(said)
        self._adapters_changed(said.adapters)

    def engine_owes(self) -> bool:
        """Whether any call waits for tokens or scores."""
        return self._pending.any_unfinished(besides=_OWN_NUMBERS)

    def engine_died(self, how: str, retry_after: float, *, hung: bool) -> None:
        """The engine process ended, or was ended because it was ``hung``, and will be started again."""
        self.hangs += hung
        _log.error("the engine process ended (%s); %d calls in flight fail", how, len(self._pending))
        self.stats = EngineStats()
        self._stop_restoring()
        self._set_state("restarting")
        self.adapters.lost()
        self._pending.fail_all(FailureKind.UNAVAILABLE, "the engine is restarting", retry_after)
