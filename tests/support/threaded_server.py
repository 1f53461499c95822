"""A real server in a thread of this process, for tests that block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.hosted_evaluation import HostedEvaluation


def threaded_server(model: Path, adapters: Path, evaluate: HostedEvaluation | None = None) -> Iterator[str]:
    """Its address, until the generator is closed. ``adapters``: the directory that adapters are loaded from.

    ``evaluate``: what runs evaluations for callers, if it offers any.
    """
    engine = EngineConfig(model=str(model), dtype="float32", total_blocks=128, max_sequences=8, threads=1)
    config = ServerConfig(engine=engine, port=0, metrics_port=None, drain_timeout=5, adapter_roots=[adapters])

    async def start() -> Server:
        # gRPC belongs to the loop that it is made in.
        server = Server(config, local_engine(config.engine), evaluate=evaluate)
        await server.start()
        return server

    with EventLoopThread() as loop:
        server = loop.run(start())
        try:
            yield f"127.0.0.1:{server.port}"
        finally:
            loop.run(server.stop())
