"""The adapters of one replica, held to what is recorded for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc

from ift_serve.deploy.ray.adapter_record import Entry
from ift_serve.engine.protocol.adapter import SERVED, AdapterInfo, AdapterState
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.adapter_service import AdapterService
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import StatusError
from ift_serve.v1 import adapter_pb2 as pb

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 60.0
_LOOKS_PER_RETRY = 15

AskRecord = Callable[..., Awaitable[Any]]
"""Calls a method of the :class:`ift_serve.deploy.ray.adapter_record.AdapterRecord` by name."""
TellReplicas = Callable[..., Awaitable[list[str]]]
"""Calls a method of every replica by name, this one included; returns what each could not do, empty for nothing."""


class ReplicaAdapters:
    """Takes up what is recorded, and has the others take up what was loaded here.

    A replica that cannot have the recorded version of a name has none of it: no caller gets another version from it.
    """

    def __init__(self, engine: BaseEngineClient, record: AskRecord, others: TellReplicas) -> None:
        self._engine = engine
        self._record = record
        self._others = others
        self._known: dict[str, Entry] = {}
        self._failed: dict[str, str] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def known(self) -> list[Entry]:
        """The last word on each name, as far as it reached this replica."""
        return list(self._known.values())

    def find(self, reference: str) -> AdapterInfo | None:
        """The version that this replica would answer ``name`` or ``name@version`` with; None: it cannot."""
        info = self._engine.adapters.find(reference)
        return info if info is not None and info.state in SERVED else None

    def is_resident(self, reference: str) -> bool:
        """Whether the adapter is in this replica's memory."""
        info = self.find(reference)
        return info is not None and info.state is AdapterState.READY

    def is_recorded(self, reference: str) -> bool:
        """Whether replicas are to have the adapter."""
        entry = self._known.get(reference.partition("@")[0])
        return entry is not None and bool(entry.version)

    async def start(self, configured: Mapping[str, Path]) -> None:
        """Offer what the configuration had loaded here, and take up everything recorded."""
        for name, path in configured.items():
            if (info := self.find(name)) is not None:
                word = Entry(name, info.version, str(path.resolve()), info.path)
                await self.adopt(await self._record("offer", [], word))
        await self._look(retry=True)

    async def adopt(self, entry: Entry, drain_seconds: float = _DRAIN_SECONDS) -> str:
        """Do as the entry says, unless a later one is known. Returns why that could not be done; empty: it is."""
        async with self._locks[entry.name]:
            known = self._known.get(entry.name)
            if known is not None and known.number > entry.number:
                return ""
            self._known[entry.name] = entry
            self._failed.pop(entry.name, None)
            try:
                await self._carry_out(entry, drain_seconds)
            except EngineError as error:
                self._failed[entry.name] = error.message
                _log.error("adapter %s@%s is not served by this replica: %s", entry.name, entry.version, error.message)
                await self._drop_others(entry)
                return error.message
            return ""

    async def _carry_out(self, entry: Entry, drain_seconds: float) -> None:
        have = self.find(entry.name)
        if not entry.version:
            if have is not None:
                await self._engine.unload_adapter(entry.name, drain_seconds)
        elif have is None or have.version != entry.version:
            await self._engine.load_adapter(entry.name, entry.path, entry.shown_path, entry.root, entry.version)

    async def _drop_others(self, entry: Entry) -> None:
        have = self.find(entry.name)
        if have is not None and have.version != entry.version:
            try:
                await self._engine.unload_adapter(entry.name, _DRAIN_SECONDS)
            except EngineError as error:
                _log.error("adapter %s@%s could not be unloaded: %s", entry.name, have.version, error.message)

    async def keep_up(self, interval: float) -> None:
        """Look at the record for ever: words that did not reach this replica, and what failed, are taken up later."""
        looks = 0
        while True:
            await asyncio.sleep(interval)
            looks += 1
            try:
                await self._look(retry=looks % _LOOKS_PER_RETRY == 0)
            except Exception:
                _log.exception("the record of adapters cannot be read; this replica keeps what it has")

    async def _look(self, *, retry: bool) -> None:
        entries: dict[str, Entry] = await self._record("merge", self.known)
        for name, entry in entries.items():
            known = self._known.get(name)
            if known is None or known.number < entry.number or (retry and name in self._failed):
                await self.adopt(entry)

    async def share(self, word: Entry, drain_seconds: float = _DRAIN_SECONDS) -> None:
        """Record a word on an adapter and have every replica act on it. Raises FAILED_PRECONDITION if one cannot."""
        entry: Entry = await self._record("say", self.known, word)
        failures = [reason for reason in await self._others("adopt_adapter", entry, drain_seconds) if reason]
        if failures:
            done = "loaded" if word.version else "unloaded"
            message = f"{word.name} is {done}, but not by {len(failures)} of the replicas: {'; '.join(failures)}"
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, message[:2000])


class SharedAdapterService(AdapterService):
    """AdapterService of all replicas: what is loaded or unloaded through one is by every one, in the same version.

    Lists and watches are those of the replica that answers.
    """

    shared: ReplicaAdapters

    async def load_adapter(self, request: pb.LoadAdapterRequest, call: Call) -> pb.LoadAdapterResponse:
        """Load it here first, so that what is wrong with it changes nothing; then everywhere."""
        response = await super().load_adapter(request, call)
        path, root = self._roots.find(request.path)
        version, shown = response.adapter.version, str(path.relative_to(root))
        await self.shared.share(Entry(request.name, version, str(path), shown, str(root)))
        return response

    async def unload_adapter(self, request: pb.UnloadAdapterRequest, call: Call) -> pb.UnloadAdapterResponse:
        """Unload it here, then everywhere. Of ``name@version``, only the newest version can be unloaded everywhere."""
        name, _, version = request.name.partition("@")
        newest = self.shared.find(name)
        if version and (newest is None or newest.version != version):
            text = f"{request.name!r} is not the newest version; replicas drain older ones by themselves"
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, text, [("name", text)])
        response = await super().unload_adapter(request, call)
        await self.shared.share(Entry(name), _drain(request))
        return response


def _drain(request: pb.UnloadAdapterRequest) -> float:
    return request.drain_seconds if request.HasField("drain_seconds") else _DRAIN_SECONDS
