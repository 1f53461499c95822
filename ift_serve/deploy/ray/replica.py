"""One replica: the engine in a process of its own, and the services, called by Ray's ingress."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.exceptions import RayError
from ray.serve.metrics import Gauge

from ift_serve.deploy.ray.adapter_record import ACTOR, Entry
from ift_serve.deploy.ray.adapter_routing import AdapterRouting
from ift_serve.deploy.ray.autoscaling import reported
from ift_serve.deploy.ray.call_context import CallContext
from ift_serve.deploy.ray.call_end import CallEnd
from ift_serve.deploy.ray.calls import Calls
from ift_serve.deploy.ray.replica_adapters import ReplicaAdapters, SharedAdapterService
from ift_serve.engines.process import engine_process
from ift_serve.server.adapter_service import AdapterRoots
from ift_serve.server.assembly import Assembly
from ift_serve.server.config import ServerConfig
from ift_serve.server.services import ADAPTER, RPC_NAMES
from ift_serve.system.logs import configure_logs

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0
_RECORD_PATIENCE, _RECORD_PAUSE = 60.0, 0.5
_BROADCAST_PATIENCE = 600.0
HAPROXY_VARIABLE = "RAY_SERVE_ENABLE_HA_PROXY"


class ReplicaSettings(BaseModel):
    """What a replica knows beside the server's configuration. ``engine_absence``: seconds.

    ``version``: of all that a replica is made of; replicas of another one are replaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    affinity: bool = True
    engine_absence: float = 60.0
    version: str = ""


class Answer:
    """A serialised message, where Ray expects one that it serialises."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        """See protobuf."""
        return self._data


class CallRefusedError(Exception):
    """Ends a stream behind Ray's proxy in Python, which takes a status from an error only."""


class Replica:
    """Ray calls a method by an rpc's name; :func:`_add_rpcs` makes them."""

    async def __init__(self, server: str, settings: str) -> None:  # type: ignore[misc]  # Ray awaits it
        config = ServerConfig.model_validate_json(server)
        self._settings = ReplicaSettings.model_validate_json(settings)
        configure_logs(config.log_level)
        self._behind_haproxy = os.environ.get(HAPROXY_VARIABLE) == "1"
        self._absent_since: float | None = None
        self._assembly = Assembly(config, engine_process(config.engine))
        self._keeping_up: asyncio.Task[None] | None = None
        try:
            await self._start(config)
        except BaseException:
            await self._assembly.close()
            raise

    async def _start(self, config: ServerConfig) -> None:
        assembly = self._assembly
        await assembly.start()
        context = serve.get_replica_context()
        self._handle = serve.get_deployment_handle(context.deployment, context.app_name)
        self._adapters = ReplicaAdapters(assembly.engine, _ask_record, self._tell_replicas)
        await self._adapters.start(config.adapters)
        service = SharedAdapterService(
            assembly.engine,
            AdapterRoots(config.adapter_roots),
            config.max_watches,
            assembly.authenticator.is_current,
        )
        service.shared = self._adapters
        assembly.services[ADAPTER] = service
        self._routing = AdapterRouting(
            self._adapters, self._handle, affinity=self._settings.affinity, most=config.engine.max_adapters
        )
        self._calls = Calls(assembly.guard, assembly.services, config.limits.request_bytes, self._routing)
        self._gauges = {name: Gauge(name, name) for name in reported(assembly.engine.stats)}
        self._keeping_up = asyncio.create_task(self._adapters.keep_up(_LOOK_SECONDS), name="adapters")
        _log.info("replica ready", extra={"replica": context.replica_id.unique_id, "model": assembly.engine.model.name})

    async def __del__(self) -> None:
        if self._keeping_up is not None:
            self._keeping_up.cancel()
        await self._assembly.close()

    async def check_health(self) -> None:
        """Raise once there has been no engine for longer than a restart takes; Ray replaces the replica."""
        if self._assembly.engine.state == "ready":
            self._absent_since = None
            return
        now = time.monotonic()
        self._absent_since = self._absent_since or now
        if now - self._absent_since > self._settings.engine_absence:
            raise RuntimeError(
                f"the engine has been {self._assembly.engine.state} for {now - self._absent_since:.0f} s"
            )

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the autoscaling policy goes by."""
        found = reported(self._assembly.engine.stats)
        for name, value in found.items():
            self._gauges[name].set(value)
        return found

    async def answer_forwarded(
        self, path: str, body: bytes, metadata: list[tuple[str, str | bytes]], peer: str
    ) -> AsyncIterator[bytes | CallEnd]:
        """A call that another replica hands over; how it ended comes last."""
        context = CallContext(metadata, peer, forwarded=True)
        async with contextlib.aclosing(self._calls.answers(path, body, context)) as answers:
            async for answer in answers:
                yield answer
        yield CallEnd.of(context)

    async def adopt_adapter(self, entry: Entry, drain_seconds: float) -> str:
        """Take up a word on an adapter; why that could not be done, with this replica's node."""
        reason = await self._adapters.adopt(entry, drain_seconds)
        return f"{serve.get_replica_context().replica_id.unique_id}: {reason}" if reason else ""

    async def recorded(self) -> tuple[str, list[Entry]]:
        """The replica's version, and what it knows of the record: replicas of another version have a new one."""
        return self._settings.version, self._adapters.known

    async def counts(self) -> dict[str, float]:
        """What this replica has counted, for benchmarks and tests."""
        engine = self._assembly.engine
        return {**self._routing.counts, **reported(engine.stats), "restarts": engine.restarts}

    async def _tell_replicas(self, method: str, *arguments: Any) -> list[str]:
        response = self._handle.broadcast(method, *arguments)
        found = await response.results_async(timeout_s=_BROADCAST_PATIENCE, return_exceptions=True)
        # A replica that is gone has nothing to be held to.
        return [str(one) for one in found if not isinstance(one, RayError)]

    async def _unary(self, path: str, body: bytes, grpc_context: Any) -> Answer:
        context = _context(grpc_context)
        found = [answer async for answer in self._calls.answers(path, body, context)]
        _end(grpc_context, context)
        return Answer(found[0] if found else b"")

    async def _stream(self, path: str, body: bytes, grpc_context: Any) -> AsyncIterator[Answer]:
        context = _context(grpc_context)
        async with contextlib.aclosing(self._calls.answers(path, body, context)) as answers:
            async for answer in answers:
                yield Answer(answer)
        _end(grpc_context, context)
        if context.ended is not grpc.StatusCode.OK and not self._behind_haproxy:
            raise CallRefusedError(context.message)

    def _health(self) -> health_pb2.HealthCheckResponse:
        serving = self._assembly.engine.state == "ready"
        known = health_pb2.HealthCheckResponse
        return known(status=known.SERVING if serving else known.NOT_SERVING)


def _context(grpc_context: Any) -> CallContext:
    return CallContext(grpc_context.invocation_metadata(), grpc_context.peer())


def _end(grpc_context: Any, context: CallContext) -> None:
    """Ray sends what is set on its context as the call's end."""
    grpc_context.set_trailing_metadata(list(context.trailing))
    if context.ended is not grpc.StatusCode.OK:
        grpc_context.set_code(context.ended)
        grpc_context.set_details(context.message)


async def _ask_record(method: str, *arguments: Any) -> Any:
    """Call the deployment's record, whose actor Ray starts again when it dies."""
    end = time.monotonic() + _RECORD_PATIENCE
    while True:
        try:
            return await getattr(serve.get_deployment_actor(ACTOR), method).remote(*arguments)
        except (RayError, ValueError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(_RECORD_PAUSE)


def _unary_method(name: str, path: str) -> Callable[..., Awaitable[Any]]:
    async def method(self: Replica, request: Any, grpc_context: Any) -> Any:
        if isinstance(request, health_pb2.HealthCheckRequest):
            return self._health()
        return await self._unary(path, request, grpc_context)

    method.__name__ = method.__qualname__ = name
    return method


def _stream_method(name: str, path: str) -> Callable[..., AsyncIterator[Any]]:
    async def method(self: Replica, request: bytes, grpc_context: Any) -> AsyncIterator[Any]:
        async with contextlib.aclosing(self._stream(path, request, grpc_context)) as answers:  # type: ignore[type-var]
            async for answer in answers:
                yield answer

    method.__name__ = method.__qualname__ = name
    return method


def _add_rpcs() -> None:
    for path, streams in RPC_NAMES.items():
        name = path.rpartition("/")[2]
        setattr(Replica, name, _stream_method(name, path) if streams else _unary_method(name, path))


_add_rpcs()
