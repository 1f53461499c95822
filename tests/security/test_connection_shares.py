"""One address cannot take all connections, nor all that is open without a token."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.client import AsyncClient, ServerError
from ift_serve.server.config import ServerConfig
from tests.support.raw_http2 import connect, settings
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
PREFACE = settings()


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def _ended(one: socket.socket) -> bytes:
    """What the server had said when it closed the connection."""

    def read() -> bytes:
        said = b""
        try:
            while more := one.recv(4096):
                said += more
        except ConnectionResetError:
            pass
        return said

    return await asyncio.to_thread(read)


async def test_the_newest_connections_of_one_address_are_closed_and_others_find_room(server_config: Make) -> None:
    config = server_config(max_connections=16, max_connections_per_address=5)
    async with serving(config) as (server, client):
        await client.model()  # from 127.0.0.1, as another caller
        greedy: list[socket.socket] = []
        for number in range(8):
            greedy.append(connect(server.port, "127.0.0.2"))
            greedy[-1].sendall(PREFACE)
            if number == 4:
                await asyncio.sleep(0.5)  # these five have been seen, and are older
        said = await asyncio.gather(*(_ended(one) for one in greedy[5:]))
        assert all(b"too many connections are open from this address" in words for words in said)
        for one in greedy[:5]:
            one.setblocking(False)
            assert one.recv(4096)  # the server's settings, and no end behind them
            with pytest.raises(BlockingIOError):
                one.recv(4096)
        value = server.metrics.registry.get_sample_value
        await _until(lambda: value("ift_connections_closed_total") == 3)

        # As one leaves, another may come.
        greedy[0].close()
        await asyncio.sleep(0.5)
        late = connect(server.port, "127.0.0.2")
        late.sendall(PREFACE)
        await asyncio.sleep(0.5)
        late.setblocking(False)
        assert b"too many" not in late.recv(4096)
        await client.model()
        for one in (*greedy, late):
            one.close()


async def test_an_address_that_fills_the_table_makes_room_at_once(server_config: Make) -> None:
    async with serving(server_config(max_connections=12)) as (server, _):
        flood = [connect(server.port, "127.0.0.3") for _ in range(40)]
        deadline = time.monotonic() + 30
        while True:
            try:
                async with AsyncClient(f"127.0.0.1:{server.port}", timeout=5, retries=0) as other:
                    await other.model()
                break
            except ServerError:
                if time.monotonic() > deadline:
                    raise
        for one in flood:
            one.close()


async def test_connections_of_a_trusted_proxy_are_not_counted(server_config: Make) -> None:
    config = server_config(max_connections=64, max_connections_per_address=2, trusted_proxies=["127.0.0.4/32"])
    async with serving(config) as (server, _):
        held = [connect(server.port, "127.0.0.4") for _ in range(12)]
        for one in held:
            one.sendall(PREFACE)
        await asyncio.sleep(0.6)
        for one in held:
            one.setblocking(False)
            assert one.recv(4096)
            with pytest.raises(BlockingIOError):
                one.recv(4096)
            one.close()
        assert server.metrics.registry.get_sample_value("ift_connections_closed_total") == 0


async def _nothing() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_checks_without_a_message_are_bounded_and_end(
    server_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ift_serve.server.open_services._PATIENCE", 2.0)
    check = "/grpc.health.v1.Health/Check"
    async with (
        serving(server_config(max_streams=8)) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as one,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as two,
    ):
        held = [channel.stream_unary(check)(_nothing(), timeout=60) for channel in (one, two) for _ in range(7)]  # type: ignore[call-arg]
        codes = [str((await call.code()).name) for call in held]
        assert codes.count("RESOURCE_EXHAUSTED") == 6 and codes.count("INVALID_ARGUMENT") == 8
        found = await health_pb2_grpc.HealthStub(one).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert found.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_names_of_services_are_short(server_config: Make, method: str) -> None:
    async with (
        serving(server_config()) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        request = health_pb2.HealthCheckRequest(service="x" * 1_000_000)
        call = getattr(health_pb2_grpc.HealthStub(channel), method)(request, timeout=60)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
