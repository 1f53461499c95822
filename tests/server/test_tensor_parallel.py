"""A server whose model two processes compute: over the wire, and when one of them dies or hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import psutil
import pytest

from ift_serve.engines.process import engine_process
from ift_serve.frontend.engine_client import EngineClient
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.server.conftest import greedy, text_prompt

pytestmark = pytest.mark.timeout(900)
_PATIENCE = 300.0
"""Seconds for what takes a few on a machine that is not crowded."""
REQUEST = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(60))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes end by themselves
            await asyncio.sleep(0.02)


def _ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def _read_to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


async def _lose(server: Server, stub: Any, stop: signal.Signals) -> None:
    """A follower gets a signal under load: calls hear of it, and the next engine answers."""
    assert isinstance(server.engine, EngineClient)
    engine, followers = server.engine.engine_pid, server.engine.model.followers
    assert engine is not None and len(followers) == 1
    stream = stub.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(200)))
    await stream.read()
    os.kill(followers[0], stop)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_to_the_end(stream)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await _until(lambda: _ended(engine) and _ended(followers[0]))


@asynccontextmanager
async def _serving(config: ServerConfig) -> AsyncIterator[tuple[Server, Any]]:
    server = Server(config, engine_process(config.engine))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, inference_pb2_grpc.InferenceServiceStub(channel)
    finally:
        await server.stop()


async def _text(stub: Any) -> str:
    return str((await stub.Generate(REQUEST, timeout=_PATIENCE)).candidates[0].text)


async def test_two_ranks_over_the_wire(server_config: Callable[..., ServerConfig], stub: Any) -> None:
    """``stub``: of a server in one process."""
    alone = await _text(stub)
    async with _serving(server_config(engine={"tensor_parallel": 2})) as (server, pair):
        assert await _text(pair) == alone
        call = pair.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(200)))
        await call.read()
        call.cancel()
        await _lose(server, pair, signal.SIGKILL)
        await _until(lambda: server.engine.state == "ready")
        assert await _text(pair) == alone
        assert isinstance(server.engine, EngineClient) and server.engine.restarts == 1
        engine, (follower,) = server.engine.engine_pid, server.engine.model.followers
        assert engine is not None and not _ended(follower)
        os.kill(engine, signal.SIGKILL)
        await _until(lambda: _ended(follower))


@pytest.mark.slow
async def test_a_rank_that_hangs_is_replaced(server_config: Callable[..., ServerConfig], stub: Any) -> None:
    alone = await _text(stub)
    async with _serving(server_config(engine={"tensor_parallel": 2, "patience": 5.0})) as (server, pair):
        await _lose(server, pair, signal.SIGSTOP)
        await _until(lambda: server.engine.state == "ready")
        assert await _text(pair) == alone
        assert isinstance(server.engine, EngineClient) and server.engine.restarts == 1
        last = [server.engine.engine_pid, *server.engine.model.followers]
    await _until(lambda: all(pid is None or _ended(pid) for pid in last))


_STARTED = """
import asyncio, json, os, sys
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.process import engine_process

async def main():
    client = engine_process(EngineConfig.model_validate_json(sys.argv[1]))
    await client.start(300)
    print(json.dumps([client.engine_pid, *client.model.followers]), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_no_rank_outlives_a_killed_server(server_config: Callable[..., ServerConfig]) -> None:
    config = server_config(engine={"tensor_parallel": 2}).engine.model_dump_json()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _STARTED, config, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pids = json.loads(await process.stdout.readline())
    assert len(pids) == 2 and not any(map(_ended, pids))
    process.kill()
    await process.wait()
    await _until(lambda: all(map(_ended, pids)))
