"""The server process: engine, gRPC port, health, reflection, metrics, drain."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Unpack

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ift_serve.frontend.engine_client import BaseEngineClient, State
from ift_serve.server.assembly import Assembly, GivenParts
from ift_serve.server.config import ServerConfig
from ift_serve.server.connections import ConnectionShares
from ift_serve.server.folder import WatchedFolder
from ift_serve.server.listener import ListenError, listen, options
from ift_serve.server.metrics import Metrics
from ift_serve.server.metrics_port import MetricsPort
from ift_serve.server.open_services import OpenServices
from ift_serve.server.services import ADAPTER, EVALUATION, INFERENCE, MODEL, generic_handlers
from ift_serve.server.watchdog import LoopWatchdog
from ift_serve.system.descriptors import allow_descriptors

_log = logging.getLogger(__name__)
_HEALTH_NAMES = ("", INFERENCE, MODEL, ADAPTER, EVALUATION)
LIVENESS = "liveness"
"""Asked of health by whoever would kill a process that hangs: SERVING also while an engine is being replaced."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Server:
    """One server. ``start``, then ``stop``; ``port`` and ``metrics_port`` are the real ones.

    What answers its calls is an :class:`Assembly`, which takes what is given here; the server has the ports.
    """

    def __init__(self, config: ServerConfig, engine: BaseEngineClient, **given: Unpack[GivenParts]) -> None:
        self.parts = Assembly(config, engine, **given)
        self.port = 0
        self.metrics_port: int | None = None
        self._health = health.aio.HealthServicer()
        bounds = OpenServices(config.max_watches, config.max_streams, self.parts.peers, config.stream_idle_timeout)
        self._server = grpc.aio.server(options=options(config), interceptors=(bounds,))
        self._connections: ConnectionShares | None = None
        self._watchdog = LoopWatchdog(self.metrics.loop_blocked.inc)
        self._metrics_port: MetricsPort | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    @property
    def config(self) -> ServerConfig:
        """What it was told to be."""
        return self.parts.config

    @property
    def engine(self) -> BaseEngineClient:
        """What computes its answers."""
        return self.parts.engine

    @property
    def metrics(self) -> Metrics:
        """What it counts."""
        return self.parts.metrics

    async def start(self) -> None:
        """Load the model and listen. Raises EngineStartError, OSError, ValueError."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._set_health(serving=False)
        await self._health.set(LIVENESS, _SERVING)
        self._watchdog.start()
        self._listen()
        await self.parts.start()
        services = self.parts.services
        handlers = generic_handlers(
            self.parts.guard, services, self.config.limits.request_bytes, self.config.stream_idle_timeout
        )
        self._server.add_generic_rpc_handlers(tuple(handlers))
        reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        await self._server.start()
        if self._connections is not None:
            self._connections.start()
        if self._metrics_port is not None:
            self._metrics_port.serve()
        if self.config.adapter_folder is not None:
            interval = self.config.adapter_folder_interval
            trusted = self.config.engine.trusted_keys
            keys = None if trusted is None else Path(trusted)
            watched = WatchedFolder(self.engine, self.config.adapter_folder, interval, self.parts.audit, keys)
            self._watching = asyncio.create_task(watched.run(), name="adapter folder")
        self.engine.on_state(self._engine_changed)
        await self._set_health(serving=True)
        self.parts.audit.write("ready", port=self.port, model=self.engine.model.name)
        _log.info(
            "ready", extra={"port": self.port, "metrics_port": self.metrics_port, "model": self.engine.model.name}
        )

    def _listen(self) -> None:
        """Take both ports, so that what is wrong with them is said before a model is loaded."""
        config = self.config
        allow_descriptors(config.max_connections, "--max-connections")
        self.port = listen(self._server, config)
        if not config.host.startswith("unix:"):
            self._connections = ConnectionShares(
                self.port,
                config.connections_per_address,
                self.parts.peers,
                self.metrics.connections_closed.inc,
                encrypted=config.tls_certificate is not None,
            )
        if config.metrics_port is not None:
            try:
                self._metrics_port = MetricsPort(config.metrics_host, config.metrics_port, self.metrics.registry)
            except OSError as error:
                raise ListenError(
                    f"metrics_port: cannot listen on {config.metrics_host}:{config.metrics_port}: {error.strerror}; "
                    "choose another with --metrics-port (0: a free one, -1: none) or --metrics-host"
                ) from error
            self.metrics_port = self._metrics_port.port

    def reload(self) -> None:
        """Read the tokens again, and go on in a new audit log. Safe from any thread.

        Certificates are looked at with each new connection.
        """
        self.parts.audit.reopen()
        self.parts.audit.write("reload")
        self.parts.authenticator.reload()

    async def _set_health(self, *, serving: bool) -> None:
        for name in _HEALTH_NAMES:
            await self._health.set(name, _SERVING if serving else _NOT_SERVING)

    def _engine_changed(self, state: State) -> None:
        if self.parts.guard.draining:
            return
        task = asyncio.get_running_loop().create_task(self._set_health(serving=state == "ready"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Drain: NOT_SERVING first, then no new calls, then those in flight get their time, then everything ends."""
        self.parts.audit.write("drain", in_flight=self.parts.guard.in_flight)
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self.config.drain_notice)
        self.parts.guard.draining = True
        if self._watching is not None:
            self._watching.cancel()
        self.engine.adapters.end_watches()
        _log.info("draining", extra={"in_flight": self.parts.guard.in_flight})
        await self._server.stop(self.config.drain_timeout)
        await self.close()
        _log.info("stopped")

    async def close(self) -> None:
        """Let go of the engine and the ports at once, started or not."""
        await self._server.stop(0)
        await self.parts.close()
        self._watchdog.close()
        if self._connections is not None:
            await asyncio.to_thread(self._connections.close)
        if self._metrics_port is not None:
            self._metrics_port.close()

    async def wait(self) -> None:
        """Until the server is stopped."""
        await self._server.wait_for_termination()
