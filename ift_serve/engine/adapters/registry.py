"""The adapters that an engine knows: loads, versions, who uses them, and the slots they run in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

import msgspec

from ift_serve.engine.adapters.host import AdapterTensors, ReadAdapter
from ift_serve.engine.adapters.host_memory import HostMemory
from ift_serve.engine.adapters.limits import AdapterLimits
from ift_serve.engine.adapters.load import AdapterLoad, read_of
from ift_serve.engine.adapters.loader import Loaded, Loader
from ift_serve.engine.adapters.reading import read_files
from ift_serve.engine.adapters.returns import Returns
from ift_serve.engine.adapters.slots import SlotPool
from ift_serve.engine.adapters.states import Effect, Event, after
from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.protocol.adapter import (
    SERVED,
    AdapterInfo,
    AdapterReply,
    AdapterState,
    LoadAdapter,
    UnloadAdapter,
)
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, RequestFailed

_log = logging.getLogger(__name__)

Subject = AdapterLoad | AdapterVersion
"""What has a state."""


class DirectoryReader(Protocol):
    """Calls what it was made with in the order asked; see ``Loader``."""

    wake: Callable[[], None]

    def start(self, key: int, *what: Any) -> None: ...
    def finished(self) -> list[Loaded]: ...


class AdapterRegistry:
    """Loads, resolves and unloads; the one owner of all states (see ``states``).

    ``step`` must be called before each step of the engine; see ``busy``. ``evicts``: past the limits the version unused
    for longest leaves host memory, and is read again when a request names it; otherwise loads are refused.
    ``make_reader``: what reads directories, given the function to call and how many seconds it may get nothing.
    """

    def __init__(
        self,
        host: AdapterTensors,
        clock: Callable[[], float] = time.monotonic,
        *,
        limits: AdapterLimits | None = None,
        evicts: bool = True,
        patience: float = 60.0,
        make_reader: Callable[[Callable[[LoadAdapter], ReadAdapter], float], DirectoryReader] = Loader,
    ) -> None:
        self._host = host
        self._clock = clock
        self._limits = limits or AdapterLimits()
        self._evicts = evicts
        self._reader = make_reader(self._read, patience)
        self._numbers = count()
        self._loads: dict[int, AdapterLoad] = {}
        """Those that are not answered, in the order asked."""
        self._versions: dict[str, list[AdapterVersion]] = {}
        """Of each name, oldest first."""
        self._in_use: dict[str, AdapterVersion] = {}
        self._unloads: dict[str, list[AdapterVersion]] = {}
        """What each unload that is not answered waits for, by its request."""
        self._expired: list[AdapterVersion] = []
        self._unreadable: list[tuple[AdapterVersion, RefusedError]] = []
        self._memory = HostMemory(self._limits, evicts=evicts)
        self._returns = Returns()
        self._arrived: dict[AdapterVersion, Any] = {}
        """Tensors that were read again and are not kept yet."""
        self._refusals: dict[AdapterVersion, RefusedError] = {}
        """Why versions cannot be read again, until their requests are told."""
        self.evictions = self.returned = 0
        """Versions that left host memory for others, and that were read again."""
        self._pool = SlotPool(host.slots)
        self._changes: list[AdapterInfo] = []
        self._replies: list[AdapterReply | RequestFailed] = []
        self._effects: dict[Effect, Callable[[Any], None]] = {
            Effect.READ: self._start_reading,
            Effect.LIST: self._list,
            Effect.KEEP: self._keep,
            Effect.DROP: self._drop,
            Effect.FORGET: self._forget,
            Effect.READ_AGAIN: self._returns.ask,
            Effect.ANNOUNCE: self._announce,
            Effect.ANSWER_LOAD: self._answer_load,
            Effect.REFUSE_LOAD: self._refuse_load,
            Effect.RETIRE_OLDER: self._retire_older,
            Effect.ANSWER_UNLOADS: self._answer_unloads,
            Effect.CANCEL_UNLOADS: self._cancel_unloads,
            Effect.END_REQUESTS: self._expired.append,
            Effect.REFUSE_REQUESTS: self._refuse_requests,
        }

    def _happen(self, subject: Subject, event: Event) -> None:
        """The only place where a state changes."""
        subject.state, effects = after(subject.state, event)
        for effect in effects:
            self._effects[effect](subject)

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from another thread, when a load is done."""
        self._reader.wake = wake

    def load(self, message: LoadAdapter) -> None:
        """Begin to load; the reply comes when it is done."""
        load = AdapterLoad(message)
        try:
            if not self._may_be_put_off(message):
                self._memory.victims(message.name, 0, self._leaving(message.name))
        except RefusedError as error:
            load.refusal = error
            self._happen(load, Event.REFUSED)
        else:
            self._happen(load, Event.ASKED)

    def unload(self, message: UnloadAdapter) -> None:
        """Refuse new requests for ``name`` or ``name@version``; free it when those in flight are done."""
        name, _, version = message.reference.partition("@")
        found = [v for v in self._versions.get(name, []) if version in ("", v.metadata.version)]
        if not found:
            text = f"{message.reference!r} is not loaded"
            self._replies.append(_failed(message.request_id, FailureKind.NOT_FOUND, text, "name"))
            return
        self._unloads[message.request_id] = list(found)
        for adapter in found:
            adapter.deadline = self._clock() + message.drain_seconds
            self._retire(adapter)

    def resolve(self, reference: str) -> AdapterVersion | None:
        """The newest version of ``name`` that is served, or ``name@version``; None for the empty reference.

        It may be evicted: ``use`` has it read again. Raises RefusedError (NOT_FOUND) otherwise.
        """
        if not reference:
            return None
        name, _, version = reference.partition("@")
        for adapter in reversed(self._versions.get(name, [])):
            if adapter.state in SERVED and version in ("", adapter.metadata.version):
                return adapter
        # Those that are loaded are not named: callers may use them, but only admins may list them.
        raise RefusedError(FailureKind.NOT_FOUND, f"adapter: {reference!r} is not loaded", "adapter")

    def ready(self) -> Iterator[AdapterVersion]:
        """Versions that new requests may use."""
        return (v for versions in self._versions.values() for v in versions if v.state in SERVED)

    @property
    def bytes(self) -> int:
        """Host memory of all versions that are in it or being read again."""
        return self._memory.bytes

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests of each version that has any, by ``name@version``."""
        return {key: adapter.users for key, adapter in self._in_use.items()}

    @property
    def resident(self) -> list[str]:
        """Versions that have a slot on the device, by ``name@version``."""
        return self._pool.resident

    @property
    def loading(self) -> bool:
        """Whether directories are being read, or evicted versions are waited for."""
        return bool(self._loads or self._returns)

    @property
    def is_returning(self) -> bool:
        """Whether an evicted version is being read again; a reading that gets nothing is given up by itself."""
        return self._returns.is_reading

    @property
    def busy(self) -> bool:
        """Whether there is something to say now."""
        return bool(self._changes or self._replies)

    def use(self, adapter: AdapterVersion) -> None:
        """One request more, of a version that is served. It may start once ``adapter.is_resident``."""
        if not adapter.users:
            self._happen(adapter, Event.USED)
        self._memory.note_use(adapter)
        adapter.users += 1
        self._in_use[adapter.key] = adapter

    def leave(self, adapter: AdapterVersion) -> None:
        """One request less; the last one of a draining version frees it."""
        adapter.users -= 1
        self._memory.note_use(adapter)
        if not adapter.users:
            del self._in_use[adapter.key]
            is_unread = adapter.state is AdapterState.RETURNING and self._returns.is_waiting(adapter)
            self._happen(adapter, Event.ABANDONED if is_unread else Event.UNUSED)

    def can_enter(self, adapter: AdapterVersion, *, only_resident: bool) -> bool:
        """Whether a request may start now; with ``only_resident`` it must not take a slot that another waits for."""
        return bool(adapter.slot) or (not only_resident and self._pool.can_take(adapter))

    def enter(self, adapter: AdapterVersion) -> None:
        """Take the adapter's slot for a request that starts; there must be one."""
        if self._pool.take(adapter):
            self._host.place(adapter.key, adapter.slot)

    def exit(self, adapter: AdapterVersion) -> None:
        """A request that had started is done."""
        self._pool.give_back(adapter)

    def step(self) -> list[AdapterVersion]:
        """Take in what was read; returns versions whose time to drain is over: their requests must end."""
        returned = []
        for outcome in self._reader.finished():
            if outcome.key in self._loads:
                self._loads[outcome.key].outcome = outcome
            else:
                returned.append(outcome)
        open_names: set[str] = set()
        for number, load in list(self._loads.items()):
            # What was asked last is the newest version, whichever was read first.
            if load.outcome is None:
                open_names.add(load.name)
            elif load.name not in open_names:
                self._finish(self._loads.pop(number))
        for outcome in returned:
            self._return(outcome)
        self._begin_returns()
        now = self._clock()
        for adapter in list(self._in_use.values()):
            late = adapter.deadline is not None and adapter.deadline <= now
            if late and adapter.state is AdapterState.DRAINING:
                self._happen(adapter, Event.EXPIRED)
        expired = self._expired.copy()
        self._expired.clear()
        return expired

    def take_unreadable(self) -> list[tuple[AdapterVersion, RefusedError]]:
        """Versions that could not be read again, and why: requests that wait for them must end."""
        unreadable, self._unreadable = self._unreadable, []
        return unreadable

    def take_changes(self) -> tuple[list[AdapterReply | RequestFailed], list[AdapterInfo]]:
        """Replies to calls, and every change since the last time."""
        replies, changes = self._replies, self._changes
        self._replies, self._changes = [], []
        return replies, changes

    def _read(self, message: LoadAdapter) -> ReadAdapter:
        """In a thread of the loader."""
        return read_files(message, self._host, self._limits)

    def _leaving(self, name: str) -> list[AdapterVersion]:
        """The versions whose place a new one of ``name`` takes."""
        return [v for v in self._versions.get(name, []) if v.state in SERVED]

    def _may_be_put_off(self, message: LoadAdapter) -> bool:
        """Whether a load need not be in host memory at once: it is one of many that an engine before this one had."""
        return bool(message.version) and self._evicts

    def _finish(self, load: AdapterLoad) -> None:
        """A load has been read, and so have all that were asked before it under its name."""
        try:
            read = load.read()
            version, size, leaving = read.metadata.version, read.metadata.bytes, self._leaving(load.name)
            same = next((v for v in self._versions.get(load.name, []) if v.metadata.version == version), None)
            if same is None and self._may_be_put_off(load.message) and not self._memory.has_room(size, leaving):
                self._happen(load, Event.PUT_OFF)
                return
            if same is None or same not in self._memory:
                self._evict(self._memory.victims(load.name, size, leaving))
        except RefusedError as error:
            load.refusal = error
            self._happen(load, Event.REFUSED)
            return
        if same is None:
            self._happen(load, Event.FITS)
        else:
            load.version = same
            self._arrived[same] = read.tensors
            self._happen(same, Event.RELOADED)
            self._arrived.pop(same, None)
            self._happen(load, Event.DUPLICATE)

    def _evict(self, adapters: list[AdapterVersion]) -> None:
        for adapter in adapters:
            _log.info("adapter %s leaves the memory; it is read again when it is asked for", adapter.key)
            self.evictions += 1
            self._happen(adapter, Event.EVICTED)

    def _begin_returns(self) -> None:
        """Have what requests wait for read again, in the order asked, as far as there is room."""
        while (adapter := self._returns.first_waiting()) is not None:
            try:
                self._evict(self._memory.victims(adapter.name, adapter.metadata.bytes))
            except RefusedError:
                return  # requests use all that there is; the first of them to end makes room
            self._memory.take(adapter)
            number = next(self._numbers)
            self._returns.begin(adapter, number)
            self._reader.start(number, msgspec.structs.replace(adapter.source, version=adapter.metadata.version))

    def _return(self, outcome: Loaded) -> None:
        """An evicted version has been read again, or cannot be."""
        adapter = self._returns.finish(outcome.key)
        if adapter is None:
            return
        try:
            read = read_of(outcome, adapter.metadata.version)
        except RefusedError as error:
            _log.error("adapter %s left the memory and cannot be read again: %s", adapter.key, error.message)
            self._refusals[adapter] = error
            self._happen(adapter, Event.UNREADABLE)
        else:
            self.returned += 1
            self._arrived[adapter] = read.tensors
            self._happen(adapter, Event.RETURNED)

    def _retire(self, adapter: AdapterVersion) -> None:
        self._happen(adapter, Event.RETIRED_IN_USE if adapter.users else Event.RETIRED)

    def _start_reading(self, load: AdapterLoad) -> None:
        number = next(self._numbers)
        self._loads[number] = load
        self._reader.start(number, load.message)

    def _list(self, load: AdapterLoad) -> None:
        read = load.read()
        load.version = AdapterVersion(load.name, load.message, read.metadata, load.state)
        self._versions.setdefault(load.name, []).append(load.version)

    def _keep(self, subject: Subject) -> None:
        """Keep what was read; of a version that is loaded again while it is resident, what there is."""
        if isinstance(subject, AdapterLoad):
            assert subject.version is not None
            adapter, tensors = subject.version, subject.read().tensors
        else:
            adapter, tensors = subject, self._arrived.pop(subject)
        if not adapter.is_resident:
            adapter.is_resident = True
            self._returns.drop(adapter)
            self._memory.take(adapter)
            self._host.keep(adapter.key, tensors)

    def _drop(self, adapter: AdapterVersion) -> None:
        self._returns.drop(adapter)
        self._memory.leave(adapter)
        if adapter.is_resident:
            adapter.is_resident = False
            self._host.forget(adapter.key, self._pool.drop(adapter))

    def _forget(self, adapter: AdapterVersion) -> None:
        versions = self._versions[adapter.name]
        versions.remove(adapter)
        if not versions:
            del self._versions[adapter.name]

    def _refuse_requests(self, adapter: AdapterVersion) -> None:
        self._unreadable.append((adapter, self._refusals.pop(adapter)))

    def _announce(self, subject: Subject) -> None:
        self._changes.append(subject.info())

    def _answer_load(self, load: AdapterLoad) -> None:
        self._replies.append(AdapterReply(request_id=load.message.request_id, adapters=[load.info()]))

    def _refuse_load(self, load: AdapterLoad) -> None:
        assert load.refusal is not None
        refusal = load.refusal
        _log.warning("adapter %s was not loaded: %s", load.name, refusal.message)
        self._replies.append(
            _failed(load.message.request_id, refusal.kind, refusal.message, "path", refusal.retry_after)
        )

    def _retire_older(self, subject: Subject) -> None:
        newest = subject.version if isinstance(subject, AdapterLoad) else subject
        for older in [v for v in self._versions[subject.name] if v is not newest]:
            self._retire(older)

    def _answer_unloads(self, adapter: AdapterVersion) -> None:
        for request_id, versions in list(self._unloads.items()):
            if all(v.state is AdapterState.UNLOADED for v in versions):
                del self._unloads[request_id]
                self._replies.append(AdapterReply(request_id=request_id, adapters=[v.info() for v in versions]))

    def _cancel_unloads(self, adapter: AdapterVersion) -> None:
        """Loaded again while it drained: the resident tensors go on serving, and pending unloads are answered."""
        adapter.deadline = None
        for request_id in [number for number, versions in self._unloads.items() if adapter in versions]:
            del self._unloads[request_id]
            text = f"{adapter.key} was loaded again before it was free"
            self._replies.append(_failed(request_id, FailureKind.CANCELLED, text, "name"))


def _failed(request_id: str, kind: FailureKind, message: str, field: str, retry_after: float = 0.0) -> RequestFailed:
    text = f"{field}: {message}"
    return RequestFailed(request_id=request_id, kind=kind, message=text, field=field, retry_after=retry_after)
