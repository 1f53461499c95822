"""AdapterService: loading, unloading and watching adapters below the configured roots."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc

from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterState
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.auth import Identity
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import StatusError, invalid
from ift_serve.sharing.places import Places
from ift_serve.v1 import adapter_pb2 as pb

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[0-9a-f]{1,64})?")
_LONGEST_DRAIN, _USUAL_DRAIN = 3600.0, 60.0
_STATES = {
    AdapterState.LOADING: pb.ADAPTER_STATE_LOADING,
    AdapterState.READY: pb.ADAPTER_STATE_READY,
    AdapterState.EVICTED: pb.ADAPTER_STATE_EVICTED,
    AdapterState.RETURNING: pb.ADAPTER_STATE_RETURNING,
    AdapterState.DRAINING: pb.ADAPTER_STATE_DRAINING,
    AdapterState.UNLOADED: pb.ADAPTER_STATE_UNLOADED,
    AdapterState.FAILED: pb.ADAPTER_STATE_FAILED,
}


def check_name(name: str, path: str = "name") -> None:
    """Raise INVALID_ARGUMENT unless requests could use the name."""
    if not _NAME.fullmatch(name):
        raise invalid(path, f"{name[:80]!r} is not a name; use letters, digits, '.', '_' and '-', at most 64")


def check_reference(reference: str, path: str) -> None:
    """Raise INVALID_ARGUMENT unless it is a name or ``name@version``."""
    if not _REFERENCE.fullmatch(reference):
        raise invalid(path, f"{reference[:80]!r} is neither a name nor name@version")


class AdapterRoots:
    """The only places that adapters may be loaded from."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = [root.resolve() for root in roots]

    def find(self, path: str, field: str = "path") -> tuple[Path, Path]:
        """The directory that a client means, and the root it is in. To clients it is called by its path from there.

        Raises INVALID_ARGUMENT for what is outside every root or is not there.
        """
        if not path or "\0" in path:
            raise invalid(field, "is empty; name a directory below an adapter root")
        if not self._roots:
            raise invalid(field, "this server has no adapter root; start it with --adapter-root")
        given = Path(path)
        for root in self._roots:
            try:
                target = (given if given.is_absolute() else root / given).resolve(strict=True)
            except (OSError, RuntimeError):
                continue
            if target != root and target.is_relative_to(root) and target.is_dir():
                return target, root
        # The same words whether it is missing or outside: a caller learns nothing of the rest of the disk.
        raise invalid(field, f"{path[:200]!r} is not a directory below an adapter root of this server")


def adapter_message(info: AdapterInfo, users: dict[str, int]) -> pb.Adapter:
    """One version, for clients."""
    return pb.Adapter(
        name=info.name,
        version=info.version,
        state=_STATES[info.state],
        path=info.path,
        components=info.components,
        rank=info.rank,
        bytes=info.bytes,
        in_flight=users.get(f"{info.name}@{info.version}", 0),
        message=info.message,
        trained_on=info.trained_on,
    )


class AdapterService:
    """Handlers by rpc name. Each gets the request and its call.

    ``max_watches``: of one caller, twice as many of all. ``is_current``: whether a caller's token is still valid.
    """

    def __init__(
        self,
        engine: BaseEngineClient,
        roots: AdapterRoots,
        max_watches: int,
        is_current: Callable[[Identity], bool],
    ) -> None:
        self._is_current = is_current
        self._engine = engine
        self._roots = roots
        self._watches = Places(2 * max_watches)

    async def load_adapter(self, request: pb.LoadAdapterRequest, call: Call) -> pb.LoadAdapterResponse:
        """Load a directory; the old version goes on serving until the new one is ready, and if it fails."""
        check_name(request.name)
        call.notes["adapter"] = request.name
        path, root = self._roots.find(request.path)
        call.notes["path"] = str(path.relative_to(root))
        if (before := self._engine.adapters.find(request.name)) is not None:
            call.notes["replaces"] = before.version
        info = await self._engine.load_adapter(request.name, str(path), str(path.relative_to(root)), str(root))
        call.notes["version"] = info.version
        return pb.LoadAdapterResponse(adapter=self._message(info))

    async def unload_adapter(self, request: pb.UnloadAdapterRequest, call: Call) -> pb.UnloadAdapterResponse:
        """Refuse new requests, wait for those in flight, free the memory."""
        check_reference(request.name, "name")
        seconds = request.drain_seconds if request.HasField("drain_seconds") else _USUAL_DRAIN
        if not 0 <= seconds <= _LONGEST_DRAIN:
            raise invalid("drain_seconds", f"{seconds} is not between 0 and {_LONGEST_DRAIN:g} seconds")
        call.notes["adapter"] = request.name
        gone = await self._engine.unload_adapter(request.name, seconds)
        call.notes["version"] = ",".join(info.version for info in gone)
        return pb.UnloadAdapterResponse(adapters=[self._message(info) for info in gone])

    async def list_adapters(self, request: pb.ListAdaptersRequest, call: Call) -> pb.ListAdaptersResponse:
        """All versions that are served or drain."""
        return pb.ListAdaptersResponse(adapters=[self._message(info) for info in self._engine.adapters.all()])

    async def get_adapter(self, request: pb.GetAdapterRequest, call: Call) -> pb.GetAdapterResponse:
        """One version."""
        check_reference(request.name, "name")
        info = self._engine.adapters.find(request.name)
        if info is None:
            raise EngineError(FailureKind.NOT_FOUND, f"name: {request.name!r} is not loaded", "name")
        return pb.GetAdapterResponse(adapter=self._message(info))

    async def watch_adapters(
        self, request: pb.WatchAdaptersRequest, call: Call
    ) -> AsyncIterator[pb.WatchAdaptersResponse]:
        """All versions, then every change."""
        caller, watches = call.identity.name, self._watches
        if not watches.has_room(caller):
            message = f"{watches.held(caller)} watches of this caller and {watches.taken} of all are open already"
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after=5.0)
        watches.take(caller)
        try:
            async for info in self._engine.adapters.watch():
                if not self._is_current(call.identity):
                    raise StatusError(grpc.StatusCode.UNAUTHENTICATED, "the token of this watch is not valid any more")
                yield pb.WatchAdaptersResponse(adapter=self._message(info))
        finally:
            watches.leave(caller)

    def _message(self, info: AdapterInfo) -> pb.Adapter:
        return adapter_message(info, self._engine.stats.adapter_users)
