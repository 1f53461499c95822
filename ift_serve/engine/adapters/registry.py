"""The adapters that an engine knows: versions, who uses them, and the slots they run in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from ift_serve.engine.adapters.kept_copies import keep
from ift_serve.engine.adapters.loader import Loaded, Loader
from ift_serve.engine.adapters.slots import SlotPool
from ift_serve.engine.adapters.version import AdapterMetadata, AdapterVersion
from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterReply, AdapterState, LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, RequestFailed
from ift_serve.modeling.adapter_format.config import IFT_WEIGHTS, PEFT_WEIGHTS

_log = logging.getLogger(__name__)
_LARGEST_CONVERSION = 4
"""Weights may be kept in a smaller type than they are stored in."""


@dataclass(frozen=True, slots=True)
class ReadAdapter:
    """What came of reading a directory. ``tensors`` is the host's own."""

    metadata: AdapterMetadata
    tensors: Any


class AdapterTensors(Protocol):
    """The side that has the tensors."""

    @property
    def slots(self) -> int: ...
    def read(self, path: str, root: str) -> ReadAdapter:
        """Read and check a directory that must lie in ``root`` (empty: anywhere), in the loader's thread.

        Raises what is wrong with it."""

    def keep(self, key: str, tensors: Any) -> None:
        """What was read is resident as ``key`` from now on."""

    def place(self, key: str, slot: int) -> None:
        """Have batches find the adapter in ``slot``."""

    def forget(self, key: str, slot: int | None) -> None:
        """Free an adapter that nobody uses, and the slot it was in."""


class NoAdapters:
    """The host of an engine that serves none."""

    slots = 1

    def read(self, path: str, root: str) -> ReadAdapter:
        raise ValueError("this engine serves no adapters")

    def keep(self, key: str, tensors: Any) -> None:
        """Never asked: nothing is ever read."""

    def place(self, key: str, slot: int) -> None:
        """Never asked."""

    def forget(self, key: str, slot: int | None) -> None:
        """Never asked."""


@dataclass(frozen=True, slots=True)
class AdapterLimits:
    """How many adapters may be resident, and how many bytes of host memory they may take; 0: no limit."""

    count: int = 0
    bytes: int = 0

    def check(self, name: str, others: list[AdapterVersion], size: int) -> None:
        """Raise RefusedError (OVERLOADED) unless ``name``, of ``size`` bytes if known, fits beside the others."""
        if self.count and len(others) >= self.count:
            text = f"{len(others)} adapters are loaded, as many as this server keeps (max_adapters); unload one first"
            raise RefusedError(FailureKind.OVERLOADED, text)
        total = sum(other.metadata.bytes for other in others) + size
        if self.bytes and total > self.bytes:
            text = (
                f"with {name} the loaded adapters would take {_mib(total)}, and this server keeps {_mib(self.bytes)} "
                "(max_adapter_bytes); unload some first, or raise it"
            )
            raise RefusedError(FailureKind.OVERLOADED, text)

    def check_files(self, path: str) -> None:
        """The same for weights that could not fit even alone, before they are read."""
        files = [Path(path, name) for name in (PEFT_WEIGHTS, IFT_WEIGHTS)]
        size = sum(file.stat().st_size for file in files if file.is_file())
        if self.bytes and size > _LARGEST_CONVERSION * self.bytes:
            text = f"its files take {_mib(size)}, and this server keeps {_mib(self.bytes)} (max_adapter_bytes)"
            raise RefusedError(FailureKind.OVERLOADED, text)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


class AdapterRegistry:
    """Loads, resolves and unloads. ``step`` must be called before each step of the engine; see ``busy``."""

    def __init__(
        self,
        host: AdapterTensors,
        clock: Callable[[], float] = time.monotonic,
        *,
        limits: AdapterLimits | None = None,
        patience: float = 60.0,
    ) -> None:
        self._host = host
        self._clock = clock
        self._limits = limits or AdapterLimits()
        self._loader = Loader(self._read, patience)
        self._early: dict[int, Loaded] = {}
        self._numbers = count()
        self._loading: dict[int, LoadAdapter] = {}
        self._versions: dict[str, list[AdapterVersion]] = {}
        self._pool = SlotPool(host.slots)
        self._events: list[AdapterInfo] = []
        self._replies: list[AdapterReply | RequestFailed] = []
        self.in_flight: dict[str, int] = {}
        """Requests of each version that has any, by ``name@version``."""
        self._unloads: dict[str, list[AdapterVersion]] = {}

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from another thread, when a load is done."""
        self._loader.wake = wake

    def load(self, message: LoadAdapter) -> None:
        """Begin to load; the reply comes when it is done."""
        try:
            self._limits.check(message.name, self._others(message.name), 0)
        except RefusedError as error:
            self._refuse(message, error.kind, error.message)
            return
        number = next(self._numbers)
        self._loading[number] = message
        self._events.append(
            AdapterInfo(name=message.name, version="", state=AdapterState.LOADING, path=message.shown_path)
        )
        self._loader.start(number, message)

    def _read(self, message: LoadAdapter) -> ReadAdapter:
        """Read an adapter and keep a copy of its files. In a thread of the loader."""
        self._limits.check_files(message.path)
        read = self._host.read(message.path, message.root)
        if message.keep_in and (not message.version or message.version == read.metadata.version):
            try:
                keep(message.path, message.root, read.metadata.version, message.keep_in, message.keep_bytes)
            except Exception as error:
                _log.warning("adapter %s is not kept for a restart: %s", message.name, error)
        return read

    def _others(self, name: str) -> list[AdapterVersion]:
        """The versions that stay when a new one of ``name`` takes its place."""
        every = (v for versions in self._versions.values() for v in versions)
        return [v for v in every if v.name != name or v.state is AdapterState.DRAINING]

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
            self._drain(adapter)

    def resolve(self, reference: str) -> AdapterVersion | None:
        """The newest ready version of ``name``, or ``name@version``; None for the empty reference.

        Raises RefusedError (NOT_FOUND) otherwise.
        """
        if not reference:
            return None
        name, _, version = reference.partition("@")
        for adapter in reversed(self._versions.get(name, [])):
            if adapter.state is AdapterState.READY and version in ("", adapter.metadata.version):
                return adapter
        known = ", ".join(sorted(v.name for v in self.ready())) or "none"
        raise RefusedError(FailureKind.NOT_FOUND, f"adapter: {reference!r} is not loaded; loaded: {known}", "adapter")

    def ready(self) -> Iterator[AdapterVersion]:
        """Versions that new requests may use."""
        for versions in self._versions.values():
            yield from (v for v in versions if v.state is AdapterState.READY)

    @property
    def bytes(self) -> int:
        """Host memory of all resident versions."""
        return sum(v.metadata.bytes for versions in self._versions.values() for v in versions)

    @property
    def loading(self) -> bool:
        """Whether directories are being read."""
        return bool(self._loading)

    @property
    def busy(self) -> bool:
        """Whether there is something to say now."""
        return bool(self._events or self._replies)

    def use(self, adapter: AdapterVersion) -> None:
        """One request more."""
        adapter.users += 1
        self.in_flight[adapter.key] = adapter.users

    def leave(self, adapter: AdapterVersion) -> None:
        """One request less; the last one of a drained version frees it."""
        adapter.users -= 1
        self.in_flight[adapter.key] = adapter.users
        if not adapter.users:
            del self.in_flight[adapter.key]
        if not adapter.users and adapter.state is AdapterState.DRAINING:
            self._free(adapter)

    def can_enter(self, adapter: AdapterVersion, *, only_resident: bool) -> bool:
        """Whether a request may start now; with ``only_resident`` it must not take a slot that another waits for."""
        return self._pool.is_resident(adapter.key) or (not only_resident and self._pool.can_take(adapter.key))

    def enter(self, adapter: AdapterVersion) -> int:
        """Take the adapter's slot for a request that starts; there must be one."""
        slot, fresh = self._pool.take(adapter.key)
        if fresh:
            self._host.place(adapter.key, slot)
        adapter.slot = slot
        return slot

    def exit(self, adapter: AdapterVersion) -> None:
        """A request that had started is done."""
        self._pool.give_back(adapter.key)

    def step(self) -> list[AdapterVersion]:
        """Take in loads that are done; returns drained versions whose time is over: their requests must end."""
        self._early |= {outcome.key: outcome for outcome in self._loader.finished()}
        for key in sorted(self._early):
            # What was asked last is the newest version, whichever was read first.
            name = self._loading[key].name
            if not any(other < key and message.name == name for other, message in self._loading.items()):
                self._finish(self._early.pop(key))
        now = self._clock()
        late = [
            v
            for versions in self._versions.values()
            for v in versions
            if v.state is AdapterState.DRAINING and v.users and v.deadline is not None and v.deadline <= now
        ]
        return late

    def take_changes(self) -> tuple[list[AdapterReply | RequestFailed], list[AdapterInfo]]:
        """Replies to calls, and every change since the last time."""
        replies, events = self._replies, self._events
        self._replies, self._events = [], []
        return replies, events

    def _finish(self, outcome: Loaded) -> None:
        message = self._loading.pop(outcome.key)
        if outcome.error is not None:
            kind = outcome.error.kind if isinstance(outcome.error, RefusedError) else FailureKind.UNFIT
            self._refuse(message, kind, str(outcome.error) or type(outcome.error).__name__)
            return
        read: ReadAdapter = outcome.result
        metadata = read.metadata
        if message.version and message.version != metadata.version:
            self._refuse(message, FailureKind.NOT_FOUND, f"version {message.version} is gone: the files have changed")
            return
        try:
            self._limits.check(message.name, self._others(message.name), metadata.bytes)
        except RefusedError as error:
            self._refuse(message, error.kind, error.message)
            return
        versions = self._versions.setdefault(message.name, [])
        same = next((v for v in versions if v.metadata.version == metadata.version), None)
        if same is None:
            adapter = AdapterVersion(message.name, message.shown_path, metadata)
            self._host.keep(adapter.key, read.tensors)
            versions.append(adapter)
        else:
            adapter = same
            if adapter.state is AdapterState.DRAINING:
                self._revive(adapter)
        self._events.append(adapter.info())
        for older in [v for v in versions if v is not adapter]:
            self._drain(older)
        self._replies.append(AdapterReply(request_id=message.request_id, adapters=[adapter.info()]))

    def _refuse(self, message: LoadAdapter, kind: FailureKind, reason: str) -> None:
        _log.warning("adapter %s was not loaded: %s", message.name, reason)
        path, failed = message.shown_path, AdapterState.FAILED
        self._events.append(AdapterInfo(name=message.name, version="", state=failed, path=path, message=reason))
        self._replies.append(_failed(message.request_id, kind, reason, "path"))

    def _revive(self, adapter: AdapterVersion) -> None:
        """Loaded again while it drained: what is in memory serves on, and whoever waits for its end is told."""
        adapter.state, adapter.deadline = AdapterState.READY, None
        for request_id in [number for number, versions in self._unloads.items() if adapter in versions]:
            del self._unloads[request_id]
            text = f"{adapter.key} was loaded again before it was free"
            self._replies.append(_failed(request_id, FailureKind.CANCELLED, text, "name"))

    def _drain(self, adapter: AdapterVersion) -> None:
        if adapter.state is AdapterState.READY:
            adapter.state = AdapterState.DRAINING
            if adapter.users:
                self._events.append(adapter.info())
        if not adapter.users:
            self._free(adapter)

    def _free(self, adapter: AdapterVersion) -> None:
        versions = self._versions[adapter.name]
        versions.remove(adapter)
        if not versions:
            del self._versions[adapter.name]
        self._host.forget(adapter.key, self._pool.drop(adapter.key))
        adapter.state = AdapterState.UNLOADED
        self._events.append(adapter.info())
        for request_id, versions in list(self._unloads.items()):
            if all(v.state is AdapterState.UNLOADED for v in versions):
                del self._unloads[request_id]
                self._replies.append(AdapterReply(request_id=request_id, adapters=[v.info() for v in versions]))


def _failed(request_id: str, kind: FailureKind, message: str, field: str) -> RequestFailed:
    return RequestFailed(request_id=request_id, kind=kind, message=f"{field}: {message}", field=field)
