"""Expensive, hostile and impolite requests, each bounded in number and time. Names are what the table shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from attack_reasoning import REASONING
from attack_verdicts import VERDICTS
from attacker import Attack, Attacker, all_of
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.v1 import adapter_pb2, adapter_pb2_grpc, inference_pb2_grpc
from ift_serve.v1 import inference_pb2 as pb

_GENERATE = "/ift_serve.v1.InferenceService/Generate"
_PATIENCE = 60.0


def _raw(body: bytes, count: int, *, known: bool = True) -> Attack:
    async def attack(attacker: Attacker) -> None:
        async with attacker.channel() as channel:
            method = channel.unary_unary(_GENERATE)  # type: ignore[call-arg]
            metadata = attacker.metadata if known else ()
            await all_of(method(body, metadata=metadata, timeout=_PATIENCE) for _ in range(count))

    return attack


def _generate(request: pb.GenerateRequest, count: int) -> Attack:
    return _raw(request.SerializeToString(), count)


def _score(request: pb.ScoreRequest, count: int) -> Attack:
    async def attack(attacker: Attacker) -> None:
        async with attacker.channel() as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            await all_of(stub.Score(request, metadata=attacker.metadata, timeout=_PATIENCE) for _ in range(count))

    return attack


def _text(text: str) -> pb.Prompt:
    return pb.Prompt(text=pb.TextPrompt(text=text))


def _length(size: int) -> bytes:
    encoded = bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*encoded, size))


def _nested(numbers: list[int], body: bytes) -> bytes:
    for number in reversed(numbers):
        body = bytes([number << 3 | 2]) + _length(len(body)) + body
    return body


_LONG = pb.Sampling(temperature=1, max_new_tokens=400, ignore_eos=True)
_MANY_MESSAGES = pb.Conversation(
    messages=[pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="a")]) for _ in range(20_000)]
)
_MANY_PARTS = pb.Conversation(
    messages=[pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="a") for _ in range(50_000)])]
)


async def _unread_streams(attacker: Attacker) -> None:
    request = pb.StreamGenerateRequest(
        prompt=_text("once"), sampling=_LONG, details=pb.Details(statistics=True, top_alternatives=20)
    )
    async with attacker.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        calls = [stub.StreamGenerate(request, metadata=attacker.metadata) for _ in range(32)]
        await asyncio.sleep(10)
        for call in calls:
            call.cancel()


async def _cancel_storm(attacker: Attacker) -> None:
    request = pb.StreamGenerateRequest(prompt=_text("once " * 100), sampling=_LONG)
    async with attacker.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for _ in range(40):
            calls = [stub.StreamGenerate(request, metadata=attacker.metadata) for _ in range(20)]
            await asyncio.sleep(0.05)
            for call in calls:
                call.cancel()


async def _short_deadlines(attacker: Attacker) -> None:
    request = pb.GenerateRequest(prompt=_text("once " * 100), sampling=_LONG)
    async with attacker.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for _ in range(50):
            await all_of(stub.Generate(request, metadata=attacker.metadata, timeout=0.001) for _ in range(20))


async def _left_scores(attacker: Attacker) -> None:
    """Callers who leave: nothing of what they asked for may go on."""
    request = pb.ScoreRequest(text=pb.ScoreText(text="once upon a time " * 20_000))
    async with attacker.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        await all_of(stub.Score(request, metadata=attacker.metadata, timeout=0.5) for _ in range(8))
        await asyncio.sleep(3)


async def _watches(attacker: Attacker) -> None:
    async with attacker.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        adapters = adapter_pb2_grpc.AdapterServiceStub(channel)
        calls: list[Any] = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(500)]
        request = adapter_pb2.WatchAdaptersRequest()
        calls += [adapters.WatchAdapters(request, metadata=attacker.admin) for _ in range(500)]
        await asyncio.sleep(5)
        for call in calls:
            call.cancel()


async def _reflection(attacker: Attacker) -> None:
    async def symbols() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield _nested([4], b"ift_serve.v1.InferenceService")

    async def read(channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(  # type: ignore[call-arg]
            symbols(), timeout=_PATIENCE
        )
        async for _ in call:
            pass

    async with attacker.channel() as channel:
        await all_of(read(channel) for _ in range(100))


async def _connections(attacker: Attacker) -> None:
    host, port = attacker.target.rsplit(":", 1)
    await _hold(host, int(port), 2000)


async def _metrics(attacker: Attacker) -> None:
    await _hold(attacker.target.rsplit(":", 1)[0], attacker.metrics_port, 200)


async def _hold(host: str, port: int, count: int) -> None:
    """Open connections, say nothing, and leave after a while."""
    opened = []
    for _ in range(count):
        with contextlib.suppress(OSError, TimeoutError):
            opened.append(await asyncio.wait_for(asyncio.open_connection(host, port), 5))
    await asyncio.sleep(5)
    for _, writer in opened:
        writer.close()


async def _hostile_loads(attacker: Attacker) -> None:
    async with attacker.channel() as channel:
        stub = adapter_pb2_grpc.AdapterServiceStub(channel)
        for path in ("../../etc", "missing", "a\0b", "/proc/self", "x" * 4000):
            request = adapter_pb2.LoadAdapterRequest(name="a", path=path)
            await all_of(stub.LoadAdapter(request, metadata=attacker.admin, timeout=_PATIENCE) for _ in range(50))


CATALOGUE: dict[str, Attack] = {
    "endless number, unknown caller": _raw(b"\xff" * 1_000_000, 20, known=False),
    "endless number": _raw(b"\xff" * 1_000_000, 20),
    "endless number in a prompt": _raw(_nested([1], b"\xff" * 1_000_000), 20),
    "a mebibyte of empty messages": _raw(_nested([1, 2], b"\x0a\x00" * 500_000), 8),
    "too large a message": _raw(b"\x0a" * 5_000_000, 8),
    "20,000 messages": _generate(pb.GenerateRequest(prompt=pb.Prompt(conversation=_MANY_MESSAGES)), 8),
    "50,000 parts": _generate(pb.GenerateRequest(prompt=pb.Prompt(conversation=_MANY_PARTS)), 8),
    "a mebibyte of one character": _generate(pb.GenerateRequest(prompt=_text("a" * 1_000_000)), 8),
    "a mebibyte of spaces": _generate(pb.GenerateRequest(prompt=_text(" " * 1_000_000)), 8),
    "a mebibyte of emoji": _generate(pb.GenerateRequest(prompt=_text("\U0001f600" * 250_000)), 8),
    "300 kB of words in an instruction": _generate(
        pb.GenerateRequest(prompt=pb.Prompt(instruction=pb.InstructionPrompt(instruction="word " * 60_000))), 8
    ),
    "32 candidates with 20 alternatives": _generate(
        pb.GenerateRequest(
            prompt=_text("once"),
            sampling=pb.Sampling(n=32, max_new_tokens=200, ignore_eos=True, temperature=1),
            details=pb.Details(statistics=True, top_alternatives=20),
        ),
        2,
    ),
    "1,000 biases and all penalties": _generate(
        pb.GenerateRequest(
            prompt=_text("once"),
            sampling=pb.Sampling(
                n=16,
                max_new_tokens=200,
                ignore_eos=True,
                temperature=1,
                logit_bias=dict.fromkeys(range(1000), 1.0),
                presence_penalty=1,
                frequency_penalty=1,
                repetition_penalty=1.1,
            ),
        ),
        2,
    ),
    "stop strings that nearly match": _generate(
        pb.GenerateRequest(
            prompt=_text("a a a a"),
            sampling=pb.Sampling(
                n=16, max_new_tokens=200, ignore_eos=True, temperature=1, stop=["a" * 200 + str(i) for i in range(16)]
            ),
        ),
        2,
    ),
    "500 long requests": _generate(pb.GenerateRequest(prompt=_text("once"), sampling=_LONG), 500),
    "priority 100 on everything": _generate(
        pb.GenerateRequest(prompt=_text("once"), sampling=_LONG, priority=100), 100
    ),
    "1,000 continuations of a long context": _score(
        pb.ScoreRequest(
            continuations=pb.ScoreContinuations(
                context=_text("once upon a time " * 60),
                continuations=[pb.Continuation(text=f" number {i}") for i in range(1000)],
            )
        ),
        4,
    ),
    "a long text scored token by token": _score(
        pb.ScoreRequest(text=pb.ScoreText(text="once upon a time " * 20_000), token_log_probs=True), 4
    ),
    "scores whose callers leave": _left_scores,
    "unread streams": _unread_streams,
    "cancel storm": _cancel_storm,
    "deadlines of a millisecond": _short_deadlines,
    "1,000 watches": _watches,
    "100 reflection streams": _reflection,
    "2,000 silent connections": _connections,
    "200 silent readers of metrics": _metrics,
    "hostile adapter paths": _hostile_loads,
    **VERDICTS,
    **REASONING,
}
