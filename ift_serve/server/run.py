"""A server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from ift_serve.engine.config import EngineConfig
from ift_serve.frontend.engine_client import BaseEngineClient, EngineClient
from ift_serve.server.config import ServerConfig
from ift_serve.server.hosted_evaluation import HostedEvaluation
from ift_serve.server.stop_signals import StopSignals
from ift_serve.system.logs import configure_logs
from ift_serve.system.process_usage import resident_bytes

if TYPE_CHECKING:
    from ift_serve.server.app import Server

OpenEngine = Callable[[EngineConfig], BaseEngineClient]

GRACE = 10.0
"""Seconds that ending takes at most, beside what calls in flight are given."""


async def _until_stopped(server: Server, asked: asyncio.Event, ready: Callable[[Server], None]) -> None:
    start = asyncio.ensure_future(server.start())
    waiting = asyncio.ensure_future(asked.wait())
    await asyncio.wait({start, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await start
        await server.close()
        return
    try:
        await start
    except BaseException:
        waiting.cancel()
        await server.close()
        raise
    gc.collect()
    gc.freeze()  # what the start has made stays; full collections of the rest are then cheap, and often
    ready(server)
    await waiting
    await server.stop()


async def _run(
    config: ServerConfig,
    open_engine: OpenEngine,
    ready: Callable[[Server], None],
    signals: StopSignals,
    evaluate: HostedEvaluation | None,
) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    signals.on_stop = lambda: loop.call_soon_threadsafe(asked.set)
    engine = open_engine(config.engine)
    # The engine takes longest to start, so it begins before the rest of this process is imported.
    starting = asyncio.create_task(engine.start(config.start_timeout))
    try:
        app = await asyncio.to_thread(importlib.import_module, "ift_serve.server.app")
        server: Server = app.Server(config, engine, evaluate=evaluate, starting=starting)
    except BaseException:
        starting.cancel()
        await asyncio.wait({starting})
        await engine.close()
        raise
    signals.on_hangup = server.reload
    signals.on_profile = lambda: loop.call_soon_threadsafe(server.engine.profile)
    await _until_stopped(server, asked, ready)


def announce(server: Server) -> None:
    """The line that tells people and scripts where the server listens."""
    host = server.config.host
    metrics = "" if server.metrics_port is None else f", metrics on {server.config.metrics_host}:{server.metrics_port}"
    model = server.engine.model.name
    print(f"ift-serve ready on {host}:{server.port}, model {model}{metrics}{_held(server.engine)}", flush=True)


def _held(engine: BaseEngineClient) -> str:
    """What the engine's process holds, each rank's where there are several, and what its cache adds as it is used."""
    pid = engine.engine_pid if isinstance(engine, EngineClient) else None
    of_ranks = [] if pid is None else [resident_bytes(own) for own in (pid, *engine.model.followers)]
    known = [held for held in of_ranks if held is not None]
    if not known:
        return ""
    where = "" if engine.model.device == "cpu" else " on the GPU"
    held = " + ".join(f"{held / 2**20:.0f}" for held in known)
    return f", holding {held} MiB, cache up to {engine.model.cache_bytes / 2**20:.0f} MiB{where}"


def serve(
    config: ServerConfig,
    open_engine: OpenEngine,
    ready: Callable[[Server], None] = announce,
    evaluate: HostedEvaluation | None = None,
) -> None:
    """Serve the engine that ``open_engine`` makes until SIGTERM or SIGINT. ``evaluate``: as of :class:`Server`.

    Raises EngineStartError, ListenError, ValueError when it cannot start.
    """
    configure_logs(config.log_level)
    with StopSignals(config.drain_notice + config.drain_timeout + GRACE) as signals:
        asyncio.run(_run(config, open_engine, ready, signals, evaluate))
