"""A caller that does not read its stream keeps nothing for longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.server.conftest import greedy, text_prompt
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024), ("grpc.use_local_subchannel_pool", 1)]
LARGE = pb.StreamGenerateRequest(
    prompt=text_prompt(), sampling=greedy(200, n=8), details=pb.Details(statistics=True, top_alternatives=20)
)


async def test_an_unread_stream_ends_and_others_go_on(server_config: Make) -> None:
    config = server_config(stream_idle_timeout=0.5, engine={"total_blocks": 512})
    async with (
        serving(config) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=NARROW) as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as other,
    ):
        unread = inference_pb2_grpc.InferenceServiceStub(channel).StreamGenerate(LARGE, timeout=120)
        await unread.read()

        def ended() -> float | None:
            labels = {"method": "StreamGenerate", "code": "ABORTED"}
            return server.metrics.registry.get_sample_value("ift_calls_total", labels)

        stub = inference_pb2_grpc.InferenceServiceStub(other)
        async with asyncio.timeout(90):
            while ended() is None:
                await stub.Generate(pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(2)), timeout=60)
        await stub.Generate(pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(2)), timeout=60)
        assert server.engine.stats.running == server.engine.stats.waiting == 0
        # Who reads after all gets what was sent, and is told.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _read_to_the_end(unread)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert "not read for 0.5 seconds" in (caught.value.details() or "")


async def _read_to_the_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


async def test_a_slow_reader_gets_everything(server_config: Make) -> None:
    config = server_config(stream_idle_timeout=5.0, engine={"total_blocks": 512})
    async with (
        serving(config) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=NARROW) as channel,
    ):
        tokens = 0
        async for message in inference_pb2_grpc.InferenceServiceStub(channel).StreamGenerate(LARGE, timeout=120):
            tokens += sum(len(delta.tokens) for delta in message.deltas)
            await asyncio.sleep(0.002)
        assert tokens == 1600
