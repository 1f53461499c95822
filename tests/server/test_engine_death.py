"""The engine process is killed under load: callers hear of it at once, and the front serves again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
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

REQUEST = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(200))


async def _kill_under_load(server: Server, stub: Any) -> None:
    assert isinstance(server.engine, EngineClient)
    calls = [stub.Generate(REQUEST) for _ in range(6)]
    stream = stub.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(200)))
    await stream.read()
    pid = server.engine.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    codes = []
    for call in calls:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            codes.append(error.code())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_to_the_end(stream)
    assert server.engine.state == "restarting", "all are told before there is another engine"
    assert {*codes, caught.value.code()} == {grpc.StatusCode.UNAVAILABLE}


async def _read_to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


async def _kills(server: Server, stub: Any, times: int) -> None:
    alone = (await stub.Generate(REQUEST)).candidates[0].text
    process = psutil.Process()
    seen = []
    for _ in range(times):
        await _kill_under_load(server, stub)
        # A new call waits for the new engine and gets the same answer.
        assert (await stub.Generate(REQUEST, timeout=60)).candidates[0].text == alone
        seen.append((process.num_fds(), len(process.children(recursive=True)), process.memory_info().rss))
    assert server.engine.restarts == times
    descriptors, children, memory = zip(*seen, strict=True)
    assert descriptors[-1] <= descriptors[0] + 2
    assert children[-1] == children[0]
    assert memory[-1] <= memory[0] * 1.1 + 2**24


async def _serve_and_kill(config: ServerConfig, times: int) -> None:
    server = Server(config, engine_process(config.engine))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            await _kills(server, inference_pb2_grpc.InferenceServiceStub(channel), times)
    finally:
        await server.stop()


async def test_killing_the_engine_under_load(server_config: Callable[..., ServerConfig]) -> None:
    await _serve_and_kill(server_config(), 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_twenty_kills_leak_nothing(server_config: Callable[..., ServerConfig]) -> None:
    await _serve_and_kill(server_config(), 20)


async def test_a_model_that_cannot_be_served_stops_the_start(server_config: Callable[..., ServerConfig]) -> None:
    from ift_serve.frontend.errors import EngineStartError

    config = server_config(engine={"context_length": 100_000})
    server = Server(config, engine_process(config.engine))
    with pytest.raises(EngineStartError, match="context_length 100000"):
        await server.start()
    await server.engine.close()
    await asyncio.sleep(0)
