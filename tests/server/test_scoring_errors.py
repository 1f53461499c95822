"""What goes wrong while a text is scored in windows reaches its caller as it is, and ends the other windows."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.engine_client import EngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.side_by_side import side_by_side
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.server.conftest import greedy, text_prompt, trailing
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
MANY_WINDOWS = pb.ScoreRequest(text=pb.ScoreText(text="the fox and the dog. " * 2000))


@pytest_asyncio.fixture
async def narrow(server_config: Make) -> AsyncIterator[tuple[Server, Any]]:
    """A server that runs one sequence and lets one request wait."""
    config = server_config(engine={"context_length": 64, "max_sequences": 1, "max_waiting": 1})
    async with serving(config) as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield server, inference_pb2_grpc.InferenceServiceStub(channel)


async def _refusal(call: Any) -> tuple[grpc.StatusCode, list[str], float]:
    """Code, fields and retry delay."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = status_pb2.Status()
    status.ParseFromString(trailing(caught.value)["grpc-status-details-bin"])
    fields, delay = list[str](), 0.0
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
        if detail.Unpack(retry):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
    return caught.value.code(), fields, delay


async def test_an_unknown_adapter_is_not_found(narrow: tuple[Server, Any]) -> None:
    _, stub = narrow
    request = pb.ScoreRequest(adapter="nobody")
    request.MergeFrom(MANY_WINDOWS)
    assert await _refusal(stub.Score(request, timeout=60)) == (grpc.StatusCode.NOT_FOUND, ["adapter"], 0.0)


async def test_windows_that_find_no_room_say_when_to_come_back(narrow: tuple[Server, Any]) -> None:
    """The first window has room, of those side by side some have none."""
    _, stub = narrow
    code, _, delay = await _refusal(stub.Score(MANY_WINDOWS, timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay > 0


async def test_the_deadline_ends_all_windows(server_config: Make) -> None:
    config = server_config(engine={"context_length": 64})
    longer = pb.ScoreRequest(text=pb.ScoreText(text=MANY_WINDOWS.text.text * 8))
    async with serving(config) as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Score(longer, timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Another caller is served, and nothing of the text is left.
        await stub.Generate(pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(2)), timeout=60)
        async with asyncio.timeout(60):
            while server.engine.stats.running or server.engine.stats.waiting:  # noqa: ASYNC110 - nobody there could set an event
                await asyncio.sleep(0.01)
        counted = server.metrics.registry.get_sample_value(
            "ift_calls_total", {"method": "Score", "code": "DEADLINE_EXCEEDED"}
        )
        assert counted == 1


async def test_a_restarting_engine_is_unavailable(server_config: Make) -> None:
    config = server_config(engine={"context_length": 64})
    async with (
        serving(config, process=True) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert isinstance(server.engine, EngineClient) and server.engine.engine_pid is not None
        call = inference_pb2_grpc.InferenceServiceStub(channel).Score(MANY_WINDOWS, timeout=60)
        while not server.engine.stats.steps:  # noqa: ASYNC110 - nobody there could set an event
            await asyncio.sleep(0)
        os.kill(server.engine.engine_pid, signal.SIGKILL)
        code, _, delay = await _refusal(call)
        assert code is grpc.StatusCode.UNAVAILABLE and delay > 0


async def test_the_first_error_is_raised_as_it_is_and_ends_the_rest() -> None:
    ended, begun = list[int](), list[int]()

    async def work(part: int) -> int:
        begun.append(part)
        if part == 2:
            raise EngineError(FailureKind.OVERLOADED, "full", retry_after=3.0)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(part)
        return part

    with pytest.raises(EngineError, match="full") as caught:
        await side_by_side(range(100), work, 3)
    assert caught.value.retry_after == 3.0
    assert begun == [0, 1, 2] and sorted(ended) == [0, 1]


async def test_results_are_in_the_order_of_the_parts() -> None:
    async def work(part: int) -> int:
        await asyncio.sleep(0.001 * (part % 3))
        return part * part

    assert await side_by_side(range(20), work, 4) == [part * part for part in range(20)]
    assert await side_by_side([], work, 4) == []
