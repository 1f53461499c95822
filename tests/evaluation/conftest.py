"""Real servers in a thread of this process, shared by all tests of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.support.models import tiny_llama


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, a context of 256."""
    return tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


def _served(model: Path, adapters: Path) -> Iterator[str]:
    engine = EngineConfig(model=str(model), dtype="float32", total_blocks=128, max_sequences=8, threads=1)
    config = ServerConfig(engine=engine, port=0, metrics_port=None, drain_timeout=5, adapter_roots=[adapters])

    async def start() -> Server:
        # gRPC belongs to the loop that it is made in.
        server = Server(config, local_engine(config.engine))
        await server.start()
        return server

    with EventLoopThread() as loop:
        server = loop.run(start())
        try:
            yield f"127.0.0.1:{server.port}"
        finally:
            loop.run(server.stop())


@pytest.fixture(scope="session")
def adapter_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path, adapter_root: Path) -> Iterator[str]:
    """Address of a server of random weights."""
    yield from _served(tiny_model, adapter_root)


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of the embedded model."""
    yield from _served(model_path(), tmp_path_factory.mktemp("no-adapters"))
