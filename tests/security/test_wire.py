"""Peers that speak HTTP/2 and gRPC as no library does: refused or left alone, and nobody else feels it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.client import ServerError
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2
from tests.server.conftest import greedy, text_prompt
from tests.support.raw_http2 import connect, frame, headers, message, settings
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
GENERATE = "/ift_serve.v1.InferenceService/Generate"
_PING, _SETTINGS, _RESET, _CONTINUATION, _HEADERS = 6, 4, 3, 9, 1


def _resets(count: int) -> bytes:
    """Calls that are opened and taken back at once (CVE-2023-44487)."""
    return b"".join(
        headers(stream, GENERATE) + frame(_RESET, 0, stream, b"\x00\x00\x00\x08") for stream in range(1, 2 * count, 2)
    )


HOSTILE = {
    "not HTTP/2": b"GET / HTTP/1.1\r\n\r\n" * 100,
    "half a frame": settings() + b"\x00\x40\x00\x00\x00\x00",
    "a message of 2 GiB": settings() + headers(1, GENERATE) + message(1, b"x", claimed=2**31 - 1),
    "half a message": settings() + headers(1, GENERATE) + message(1, b"x", claimed=1000),
    "no header but the path": settings() + frame(_HEADERS, 4, 1, b"\x00\x05:path\x01/"),
    "a header block without an end": settings()
    + frame(_HEADERS, 0, 1, b"")
    + frame(_CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 1000) * 200,
    "metadata past its bound": settings() + headers(1, GENERATE, ((b"x-a", b"a" * 60_000),)),
    "metadata that is no text": settings() + headers(1, GENERATE, ((b"x-request-id", bytes(range(128, 256))),)),
    "deadlines that are none": settings()
    + b"".join(
        headers(2 * number + 1, GENERATE, ((b"grpc-timeout", timeout),))
        for number, timeout in enumerate((b"", b"1", b"-1S", b"99999999999999H", b"1x", b"0n", b"\xff"))
    ),
    "a reset of every call": settings() + _resets(3000),
    "pings": settings() + frame(_PING, 0, 0, b"12345678") * 20_000,
    "settings": settings() + frame(_SETTINGS, 0, 0, b"\x00\x04\x00\x00\x00\x00") * 10_000,
    "a window of nothing": settings(window=0)
    + headers(1, GENERATE)
    + message(
        1,
        inference_pb2.GenerateRequest(prompt=text_prompt(), sampling=greedy(4)).SerializeToString(),
        end=True,
    ),
}


def _send(one: socket.socket, data: bytes) -> None:
    """As much of it as the server takes; what it answers is read and dropped, but for ``a window of nothing``."""
    one.settimeout(5)
    try:
        for start in range(0, len(data), 65_536):
            one.sendall(data[start : start + 65_536])
    except (ConnectionError, TimeoutError):
        return


@pytest.mark.parametrize("kind", HOSTILE)
async def test_others_are_served_meanwhile_and_nothing_stays(server_config: Make, kind: str) -> None:
    async with (
        serving(server_config(stream_idle_timeout=2.0)) as (server, client),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        held = [connect(server.port) for _ in range(4)]
        sending = [asyncio.create_task(asyncio.to_thread(_send, one, HOSTILE[kind])) for one in held]
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(5):
            assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == 1
            assert len((await client.generate("the fox", max_new_tokens=2, ignore_eos=True)).candidates) == 1
        await asyncio.wait(sending)
        for one in held:
            one.close()
        await _nothing_in_flight(server)
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == 1


async def _nothing_in_flight(server: Server) -> None:
    for _ in range(600):
        if not server.parts.guard.in_flight and not len(server.engine._pending):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{server.parts.guard.in_flight} calls are left of peers that are gone")


async def test_who_connects_and_says_nothing_is_sent_away(server_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ift_serve.server.listener._HANDSHAKE_MS", 1000)
    async with serving(server_config()) as (server, _):
        silent = connect(server.port)
        silent.settimeout(60)

        def read() -> None:
            while silent.recv(4096):
                pass

        await asyncio.to_thread(read)
        silent.close()


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_are_bounded_by_what_they_unpack_to(
    server_config: Make, kind: grpc.Compression
) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with (
        serving(server_config()) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", compression=kind, options=options) as channel,
    ):
        generate = channel.unary_unary(GENERATE)  # type: ignore[call-arg]
        request = inference_pb2.GenerateRequest(prompt=text_prompt("the fox " * 20), sampling=greedy(2))
        answer = inference_pb2.GenerateResponse.FromString(await generate(request.SerializeToString(), timeout=60))
        assert len(answer.candidates) == 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await generate(bytes(20_000_000), timeout=60)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


ODD = {
    "nothing to see": "\u200b\u200c\u200d\ufeff" * 50,
    "right to left": "\u202e\u2066abc\u2069" * 20,
    "no characters": "\ufdd0\ufffe\uffff\U0010ffff" * 20,
    "marks upon marks": "a" + "\u0301" * 300,
    "families": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 20,
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "private": "\ue000\U000f0000\U00100000" * 20,
    "tags": "".join(chr(0xE0000 + n) for n in range(0x20, 0x7F)),
    "all lines": "x\r\n\u2028\u2029\x85\x0b\x0c" * 20,
}


@pytest.mark.parametrize("kind", ODD)
async def test_odd_text_is_text_or_refused_by_its_field(server_config: Make, kind: str) -> None:
    async with serving(server_config()) as (_, client):
        text = ODD[kind][:32]
        assert (await client.tokenize(text)).token_ids
        answers = await asyncio.gather(
            client.generate(text, max_new_tokens=2),
            client.generate("the fox", max_new_tokens=4, stop=[text]),
            client.generate("the fox", adapter=text),
            return_exceptions=True,
        )
        for answer in answers:
            assert not isinstance(answer, Exception) or (
                isinstance(answer, ServerError) and answer.code in ("INVALID_ARGUMENT", "NOT_FOUND")
            )
