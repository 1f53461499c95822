"""How much of a server one peer can take: connections, streams, watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.client import AsyncClient
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import adapter_pb2, adapter_pb2_grpc, model_pb2, model_pb2_grpc
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
OWN = [("grpc.use_local_subchannel_pool", 1)]


async def test_connections_are_bounded_and_those_that_stand_are_served(server_config: Make) -> None:
    async with serving(server_config(max_connections=8)) as (server, client):
        await client.model()
        raw = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(40)]
        # Those past the bound are closed; the others are greeted with the server's settings.
        greeted = await asyncio.gather(*(asyncio.wait_for(reader.read(1), 60) for reader, _ in raw))
        assert 0 < sum(bool(byte) for byte in greeted) < 8
        await client.model()
        for _, writer in raw:
            writer.close()
        for _, writer in raw:
            await writer.wait_closed()
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as another:
            await another.model()


async def test_streams_of_a_connection_are_bounded(server_config: Make) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with (
        serving(server_config(max_streams=4)) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OWN) as greedy,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OWN) as modest,
    ):
        held = [greedy.stream_unary("/ift_serve.v1.ModelService/GetModel")(nothing()) for _ in range(20)]  # type: ignore[call-arg]
        await model_pb2_grpc.ModelServiceStub(modest).GetModel(model_pb2.GetModelRequest(), timeout=60)
        for call in held:
            call.cancel()


async def test_watches_are_bounded_and_single_checks_pass(server_config: Make) -> None:
    async with (
        serving(server_config(max_watches=6)) as (server, client),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        adapters = adapter_pb2_grpc.AdapterServiceStub(channel)
        request = health_pb2.HealthCheckRequest()
        kept: list[Any] = []
        for _ in range(3):
            kept.append(health.Watch(request, timeout=60))
            assert (await kept[-1].read()).status == health_pb2.HealthCheckResponse.SERVING
        for refused in (health.Watch(request, timeout=60), _reflection(channel)):
            assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await health.Check(request, timeout=60)).status == health_pb2.HealthCheckResponse.SERVING
        kept.pop().cancel()
        again = health.Watch(request, timeout=60)
        assert (await again.read()).status == health_pb2.HealthCheckResponse.SERVING
        kept.append(again)

        await client.model()
        watching = [adapters.WatchAdapters(adapter_pb2.WatchAdaptersRequest()) for _ in range(7)]
        codes = {asyncio.ensure_future(watch.code()) for watch in watching}
        ended, others = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        assert [code.result() for code in ended] == [grpc.StatusCode.RESOURCE_EXHAUSTED] and len(others) == 6
        for call in (*kept, *watching):
            call.cancel()


def _reflection(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(timeout=60)  # type: ignore[call-arg]
