"""The server process: engine, gRPC port, health, reflection, metrics, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ift_serve.engine.client import BaseEngineClient, EngineClient, State
from ift_serve.engine.errors import EngineError
from ift_serve.engine.logs import configure_logs
from ift_serve.server.adapters import AdapterRoots, AdapterService
from ift_serve.server.auth import Authenticator
from ift_serve.server.calls import CallGuard
from ift_serve.server.config import ServerConfig
from ift_serve.server.folder import WatchedFolder
from ift_serve.server.inference import InferenceService
from ift_serve.server.metrics import Metrics
from ift_serve.server.model import ModelService
from ift_serve.server.sampling import chosen_defaults, warn_of_settings_not_applied
from ift_serve.server.services import ADAPTER, INFERENCE, MODEL, generic_handlers
from ift_serve.text.encoder import TextLimits
from ift_serve.text.prompt import PromptRenderer

_log = logging.getLogger(__name__)
_HEALTH_NAMES = ("", INFERENCE, MODEL, ADAPTER)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.limits.request_bytes),
        ("grpc.so_reuseport", 0),
        # Clients may ping while a long answer is computed: without this they are sent away with too_many_pings.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


class Server:
    """One server. ``start``, then ``stop``; ``port`` and ``metrics_port`` are the real ones."""

    def __init__(self, config: ServerConfig, engine: BaseEngineClient | None = None) -> None:
        self.config = config
        self.engine = engine or EngineClient(config.engine)
        self.metrics = Metrics()
        self.port = 0
        self.metrics_port: int | None = None
        self._guard = CallGuard(Authenticator(config.tokens_file), self.metrics, config.max_calls)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(config))
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the model and listen. Raises EngineStartError, OSError, ValueError."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._set_health(serving=False)
        self.port = self._listen()
        renderer = await asyncio.to_thread(self._renderer)
        await self.engine.start(self.config.start_timeout)
        renderer.encoder.limit_tokens(self.engine.model.context_length)
        for name, path in self.config.adapters.items():
            try:
                await self.engine.load_adapter(name, str(path.resolve()), path.name)
            except EngineError as error:
                raise ValueError(f"--adapter {name}={path}: {error.message.removeprefix('path: ')}") from error
        self.metrics.watch(self.engine)
        warn_of_settings_not_applied(chosen_defaults(self.engine.model, self.config))
        services = {
            INFERENCE: InferenceService(self.engine, renderer, self.config, self.metrics),
            MODEL: ModelService(self.engine, renderer, self.config),
            ADAPTER: AdapterService(self.engine, AdapterRoots(self.config.adapter_roots)),
        }
        self._server.add_generic_rpc_handlers(tuple(generic_handlers(self._guard, services)))
        reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        await self._server.start()
        if self.config.metrics_port is not None:
            self.metrics_port = self.metrics.serve(self.config.metrics_host, self.config.metrics_port)
        if self.config.adapter_folder is not None:
            watched = WatchedFolder(self.engine, self.config.adapter_folder, self.config.adapter_folder_interval)
            self._watching = asyncio.create_task(watched.run(), name="adapter folder")
        self.engine.on_state(self._engine_changed)
        await self._set_health(serving=True)
        _log.info(
            "ready", extra={"port": self.port, "metrics_port": self.metrics_port, "model": self.engine.model.name}
        )

    def _renderer(self) -> PromptRenderer:
        config = self.config
        return PromptRenderer.from_pretrained(
            config.engine.model,
            chat_template=config.chat_template,
            parse_special_tokens=config.parse_special_tokens,
            limits=TextLimits(text_bytes=config.limits.text_bytes, batch_bytes=config.limits.batch_bytes),
        )

    def _listen(self) -> int:
        config = self.config
        address = config.host if config.host.startswith("unix:") else f"{config.host}:{config.port}"
        if config.tls_certificate is None or config.tls_key is None:
            return self._server.add_insecure_port(address)
        authority = config.tls_client_authority
        credentials = grpc.ssl_server_credentials(
            [(config.tls_key.read_bytes(), config.tls_certificate.read_bytes())],
            root_certificates=None if authority is None else authority.read_bytes(),
            require_client_auth=authority is not None,
        )
        return self._server.add_secure_port(address, credentials)

    async def _set_health(self, *, serving: bool) -> None:
        for name in _HEALTH_NAMES:
            await self._health.set(name, _SERVING if serving else _NOT_SERVING)

    def _engine_changed(self, state: State) -> None:
        if self._guard.draining:
            return
        task = asyncio.get_running_loop().create_task(self._set_health(serving=state == "ready"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Drain: NOT_SERVING first, then no new calls, then those in flight get their time, then everything ends."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self.config.drain_notice)
        self._guard.draining = True
        if self._watching is not None:
            self._watching.cancel()
        self.engine.adapters.end_watches()
        _log.info("draining", extra={"in_flight": self._guard.in_flight})
        await self._server.stop(self.config.drain_timeout)
        await self.engine.close()
        self.metrics.close()
        _log.info("stopped")

    async def wait(self) -> None:
        """Until the server is stopped."""
        await self._server.wait_for_termination()


async def _run(config: ServerConfig, ready: Callable[[Server], None]) -> None:
    server = Server(config)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, asked.set)
    start = asyncio.ensure_future(server.start())
    waiting = asyncio.ensure_future(asked.wait())
    await asyncio.wait({start, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await start
        await server.engine.close()
        return
    try:
        await start
    except BaseException:
        waiting.cancel()
        await server.engine.close()
        raise
    ready(server)
    await waiting
    await server.stop()


def announce(server: Server) -> None:
    """The line that tells people and scripts where the server listens."""
    host = server.config.host
    metrics = "" if server.metrics_port is None else f", metrics on {server.config.metrics_host}:{server.metrics_port}"
    print(f"ift-serve ready on {host}:{server.port}, model {server.engine.model.name}{metrics}", flush=True)


def serve(config: ServerConfig, ready: Callable[[Server], None] = announce) -> None:
    """Serve until SIGTERM or SIGINT. Raises EngineStartError, OSError, RuntimeError when it cannot start."""
    configure_logs(config.log_level)
    asyncio.run(_run(config, ready))
