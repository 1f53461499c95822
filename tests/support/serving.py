"""A server in this process, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ift_serve.cli.hosted_evaluation import hosted_evaluation
from ift_serve.client import AsyncClient
from ift_serve.engines.process import engine_process
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig


@asynccontextmanager
async def serving(config: ServerConfig, *, process: bool = False) -> AsyncIterator[tuple[Server, AsyncClient]]:
    """``process``: the engine runs in a process of its own."""
    server = Server(config, (engine_process if process else local_engine)(config.engine), evaluate=hosted_evaluation)
    await server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:
            yield server, client
    finally:
        await server.stop()
