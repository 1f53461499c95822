"""A gateway in a thread of this process, in front of a real server in another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.gateway.config import GatewayConfig
from ift_serve.gateway.run import GatewayServer
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig


@dataclass(frozen=True)
class Serving:
    """A running server. ``address``: host:port."""

    server: Server
    loop: EventLoopThread

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@contextmanager
def engine_server(model: Path | None = None, engine: dict[str, Any] | None = None, **options: Any) -> Iterator[Serving]:
    """A server of the embedded model, or of another, until the block ends."""
    path = str(model or model_path())
    name = "ift-tiny" if model is None else "tiny"
    settings: dict[str, Any] = {"model": path, "model_name": name, "total_blocks": 256, "max_sequences": 16}
    settings["dtype"] = "float32"
    config = ServerConfig(
        engine=EngineConfig(**{**settings, "threads": 1, **(engine or {})}),
        **{"port": 0, "metrics_port": None, "drain_timeout": 5, **options},
    )

    async def start() -> Server:
        made = Server(config, local_engine(config.engine))  # gRPC belongs to the loop that it is made in
        await made.start()
        return made

    with EventLoopThread() as loop:
        server = loop.run(start())
        try:
            yield Serving(server, loop)
        finally:
            loop.run(server.stop())


@dataclass(frozen=True)
class RunningGateway:
    """Where a gateway listens, and itself."""

    server: GatewayServer
    loop: EventLoopThread

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def gateway(address: str, pages: Any = (), **options: Any) -> Iterator[RunningGateway]:
    """A gateway of a server until the block ends."""
    config = GatewayConfig(server=address, **{"port": 0, "drain_timeout": 2, "log_level": "error", **options})

    async def start() -> tuple[GatewayServer, asyncio.Task[None]]:
        begun = asyncio.Event()
        made = GatewayServer(config, pages, lambda _: begun.set())
        running = asyncio.ensure_future(made.run_until_stopped())
        await begun.wait()
        return made, running

    async def stop(made: GatewayServer, running: asyncio.Task[None]) -> None:
        made.stop()
        await running

    with EventLoopThread() as loop:
        server, running = loop.run(start())
        try:
            yield RunningGateway(server, loop)
        finally:
            loop.run(stop(server, running))
