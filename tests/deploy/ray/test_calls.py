"""Calls as Ray's ingress hands them over: the same answers and errors as behind a port of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import status_pb2

from ift_serve.deploy.ray.call_context import CallContext
from ift_serve.deploy.ray.call_end import DETAILS_KEY, CallEnd
from ift_serve.deploy.ray.calls import Calls
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.assembly import Assembly
from ift_serve.server.auth import Authenticator
from ift_serve.server.carried_deadline import carried_timeout
from ift_serve.server.config import ServerConfig
from ift_serve.server.errors import StatusError
from ift_serve.server.errors import details as packed_details
from ift_serve.server.services import Rpc
from ift_serve.sharing.places import Places
from ift_serve.v1 import inference_pb2 as pb
from tests.support.models import tiny_llama

pytestmark = pytest.mark.asyncio(loop_scope="module")
GENERATE, STREAM = "/ift_serve.v1.InferenceService/Generate", "/ift_serve.v1.InferenceService/StreamGenerate"


class Elsewhere:
    """Routing that sends calls for the adapter ``away`` to another replica, whose ``end`` it says."""

    def __init__(self) -> None:
        self.end = CallEnd(0, "")
        self.seconds: float | None = None
        self.taken_here: list[str] = []

    async def stays(self, adapter: str) -> bool:
        return adapter != "away"

    async def taken(self, adapter: str) -> None:
        self.taken_here.append(adapter)

    async def forwarded(
        self, rpc: Rpc, body: bytes, context: CallContext, adapter: str, seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        self.seconds = seconds
        yield body
        self.end.raise_unless_ok()


class Bench:
    """One replica's calls, without Ray."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.elsewhere = Elsewhere()
        self.calls = Calls(assembly.guard, assembly.services, 4096, self.elsewhere)

    async def call(self, path: str, body: bytes, *metadata: tuple[str, str], **how: Any) -> tuple[list[bytes], Any]:
        context = CallContext(metadata, "ipv4:127.0.0.1:5", **how)
        return [answer async for answer in self.calls.answers(path, body, context)], context


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    model: Path = tiny_llama(tmp_path_factory.mktemp("model"), context=4096)
    engine = EngineConfig(model=str(model), dtype="float32", total_blocks=300, threads=1)
    assembly = Assembly(ServerConfig(engine=engine), local_engine(engine))
    await assembly.start()
    yield Bench(assembly)
    await assembly.close()


def request(tokens: int = 8, **fields: Any) -> pb.GenerateRequest:
    prompt = pb.Prompt(text=pb.TextPrompt(text="the fox"))
    sampling = pb.Sampling(temperature=0, max_new_tokens=tokens, ignore_eos=True)
    return pb.GenerateRequest(prompt=prompt, sampling=sampling, **fields)


def details(context: CallContext) -> status_pb2.Status:
    return status_pb2.Status.FromString(dict(context.trailing)[DETAILS_KEY])  # type: ignore[arg-type]


async def test_a_unary_and_a_streaming_call_are_answered_alike(bench: Bench) -> None:
    body = request().SerializeToString()
    (whole,), context = await bench.call(GENERATE, body, ("x-request-id", "mine"))
    pieces, _ = await bench.call(STREAM, body)
    text = pb.GenerateResponse.FromString(whole).candidates[0].text
    streamed = [delta.text for piece in pieces for delta in pb.StreamGenerateResponse.FromString(piece).deltas]
    assert text == "".join(streamed) and len(pieces) > 1
    assert context.ended is grpc.StatusCode.OK and dict(context.trailing)["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "request"),
        (b"x" * 5000, grpc.StatusCode.INVALID_ARGUMENT, "request"),
        (request(adapter="no such").SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT, "adapter"),
        (request(adapter="none").SerializeToString(), grpc.StatusCode.NOT_FOUND, "adapter"),
    ],
)
@pytest.mark.parametrize("path", [GENERATE, STREAM])
async def test_an_error_becomes_a_status_with_details(
    bench: Bench, path: str, body: bytes, code: grpc.StatusCode, field: str
) -> None:
    answers, context = await bench.call(path, body)
    assert answers == [] and context.ended is code
    assert details(context).message == context.message and context.message.startswith(field)


@pytest.mark.parametrize("path", [GENERATE, STREAM])
async def test_a_call_that_does_not_begin_is_refused_with_its_status(
    bench: Bench, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the guard, before any handler: no such time, no known token, no place, on the way out."""
    body = request(1).SerializeToString()
    tokens = tmp_path / "tokens"
    tokens.write_text("generate somebody a-token-that-is-long-enough\n")
    found = {}
    _, found["time"] = await bench.call(path, body, ("x-ift-timeout", "no time"))
    with monkeypatch.context() as full:
        full.setattr(bench.assembly.guard, "_places", {"generate": Places(0)})
        _, found["place"] = await bench.call(path, body)
    with monkeypatch.context() as leaving:
        leaving.setattr(bench.assembly.guard, "draining", True)
        _, found["draining"] = await bench.call(path, body)
    with monkeypatch.context() as closed:
        closed.setattr(bench.assembly.guard, "_authenticator", Authenticator(tokens))
        _, found["token"] = await bench.call(path, body)
    assert {why: context.ended.name for why, context in found.items()} == {
        "time": "INVALID_ARGUMENT",
        "place": "RESOURCE_EXHAUSTED",
        "draining": "UNAVAILABLE",
        "token": "UNAUTHENTICATED",
    }
    assert all(details(context).message == context.message for context in found.values())


async def test_a_deadline_in_the_metadata_ends_generation_with_what_there_is(bench: Bench) -> None:
    (whole,), context = await bench.call(GENERATE, request(4000).SerializeToString(), ("x-ift-timeout", "800m"))
    found = pb.GenerateResponse.FromString(whole).candidates[0]
    assert context.ended is grpc.StatusCode.OK and found.finish_reason == pb.FINISH_REASON_DEADLINE


async def test_a_deadline_that_is_over_is_said(bench: Bench) -> None:
    _, context = await bench.call(GENERATE, request(4000).SerializeToString(), ("x-ift-timeout", "0m"))
    assert context.ended is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_that_is_cancelled_leaves_the_engine_at_once(bench: Bench) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        context = CallContext((), "ipv4:127.0.0.1:5")
        async for _ in bench.calls.answers(STREAM, request(4000).SerializeToString(), context):
            begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    async with asyncio.timeout(30):
        while bench.assembly.engine.stats.running:  # noqa: ASYNC110 - the engine's reports have no event
            await asyncio.sleep(0.01)


async def test_a_call_for_an_adapter_elsewhere_is_handed_over_with_the_time_left(bench: Bench) -> None:
    body = request(adapter="away").SerializeToString()
    answers, context = await bench.call(STREAM, body, ("x-ift-timeout", "20S"))
    assert answers == [body] and context.ended is grpc.StatusCode.OK
    assert bench.elsewhere.seconds is not None and 15 < bench.elsewhere.seconds <= 20
    handed = context.for_another(bench.elsewhere.seconds)
    assert carried_timeout(handed) == pytest.approx(bench.elsewhere.seconds, abs=0.001)


async def test_a_call_that_was_handed_over_stays(bench: Bench) -> None:
    _, context = await bench.call(STREAM, request(adapter="away").SerializeToString(), forwarded=True)
    assert context.ended is grpc.StatusCode.NOT_FOUND, "it is not loaded here"
    assert bench.elsewhere.taken_here == ["away"]


async def test_an_error_there_is_the_error_here(bench: Bench) -> None:
    error = StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", [("adapter", "is busy")], retry_after=1.5)
    code = int(error.code.value[0])
    bench.elsewhere.end = CallEnd(code, error.message, packed_details(error, "id"))
    _, context = await bench.call(STREAM, request(adapter="away").SerializeToString())
    bench.elsewhere.end = CallEnd(0, "")
    assert context.ended is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(StatusError) as again:
        CallEnd.of(context).raise_unless_ok()
    assert again.value.violations == error.violations and again.value.retry_after == 1.5
