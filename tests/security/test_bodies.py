"""Request bodies: not looked at before the caller is known, bounded, and parsed in linear time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from tests.support.serving import serving

GENERATE = "/ift_serve.v1.InferenceService/Generate"
BODIES = {
    "endless number": b"\xff" * 200_000,
    "largest endless number": b"\xff" * 2_000_000,
    "endless groups": b"\x0b" * 500_000,
    "endless number in a prompt": b"\x0a\xa0\x8d\x06" + b"\xff" * 100_000,
    "bad text at the end": pb.GenerateRequest(
        prompt=pb.Prompt(text=pb.TextPrompt(text="x" * 500_000 + "!"))
    ).SerializeToString()[:-1]
    + b"\xff",
    "empty parts": b"\x0a\xa0\x8d\x06\x12\x9c\x8d\x06" + b"\x0a\x00" * 49_998,
}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("generate app app-secret-0123456789\nadmin ops ops-secret-0123456789\n")
    path.chmod(0o600)
    return path


def bearer(token: str = "app-secret-0123456789") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def nothing() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize(
    ("metadata", "method", "expected"),
    [
        ((), GENERATE, "UNAUTHENTICATED"),
        (bearer("app-secret-0123456780"), GENERATE, "UNAUTHENTICATED"),
        (bearer(), "/ift_serve.v1.AdapterService/LoadAdapter", "PERMISSION_DENIED"),
    ],
)
async def test_who_is_refused_need_not_send_a_body(
    server_config: Callable[..., ServerConfig], tokens: Path, metadata: Any, method: str, expected: str
) -> None:
    """The answer comes while the caller has sent nothing: no byte of a body can have been looked at."""
    async with (
        serving(server_config(tokens_file=tokens)) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.stream_unary(method)(nothing(), metadata=metadata, timeout=60)  # type: ignore[call-arg]
        assert await code(call) == expected


@pytest.mark.parametrize("kind", BODIES)
async def test_hostile_bodies_are_refused_and_hold_up_nobody(
    server_config: Callable[..., ServerConfig], tokens: Path, kind: str
) -> None:
    async with (
        serving(server_config(tokens_file=tokens)) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as attacker,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as other,
    ):
        health = health_pb2_grpc.HealthStub(other)
        for metadata, expected in (((), "UNAUTHENTICATED"), (bearer(), "INVALID_ARGUMENT")):
            calls = [attacker.unary_unary(GENERATE)(BODIES[kind], metadata=metadata, timeout=60) for _ in range(3)]  # type: ignore[call-arg]
            # Before the repair each such body held the loop for seconds to minutes.
            assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == 1
            assert {await code(call) for call in calls} == {expected}
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == 1


async def test_a_call_without_a_message_is_told_so(server_config: Callable[..., ServerConfig]) -> None:
    async def no_message() -> AsyncIterator[bytes]:
        return
        yield b""

    async with (
        serving(server_config()) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert await code(channel.stream_unary(GENERATE)(no_message(), timeout=60)) == "INVALID_ARGUMENT"  # type: ignore[call-arg]
