"""Spans of calls to a real server: what of it a trace shows, and what it must not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from ift_serve.client import AsyncClient, Client, Reasoning, Regex, ServerError, Trace, Vote
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest
from ift_serve.engines.process import engine_process
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.telemetry.export import Telemetry
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.frontend.test_engine_client import until
from tests.server.conftest import greedy, text_prompt
from tests.support.models import tiny_llama

Make = Callable[..., ServerConfig]
GENERATE = "ift_serve.v1.InferenceService/Generate"
STREAM = "ift_serve.v1.InferenceService/StreamGenerate"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """What a server has exported so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    async def call(self, name: str) -> ReadableSpan:
        """The call of that name, once it has ended."""
        await until(lambda: any(s.name == name for s in self.all))
        return next(s for s in self.all if s.name == name)

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """Its children, the earliest first."""
        assert parent.context is not None
        found = [s for s in self.all if s.parent is not None and s.parent.span_id == parent.context.span_id]
        return sorted(found, key=lambda s: (s.start_time or 0, s.end_time or 0))

    def clear(self) -> None:
        self.exporter.clear()


@asynccontextmanager
async def traced(
    config: ServerConfig, *, process: bool = False, ratio: float | None = None
) -> AsyncIterator[tuple[Server, AsyncClient, Spans]]:
    spans = Spans()
    telemetry = Telemetry(SimpleSpanProcessor(spans.exporter), ratio=ratio)
    server = Server(config, (engine_process if process else local_engine)(config.engine), telemetry=telemetry)
    await server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:
            yield server, client, spans
    finally:
        await server.stop()


@contextmanager
def caller_span(provider: TracerProvider | None = None) -> Iterator[trace.SpanContext]:
    """A span of a program that calls the server."""
    tracer = (provider or TracerProvider(shutdown_on_exit=False)).get_tracer("caller")
    with tracer.start_as_current_span("asks") as span:
        yield span.get_span_context()


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_call_is_a_span_of_its_callers_trace_with_its_phases_in_order(server_config: Make) -> None:
    async with traced(server_config(), process=True) as (_, client, spans):
        for method in (GENERATE, STREAM):
            with caller_span() as asked:
                if method == GENERATE:
                    answer = await client.generate("the fox", temperature=0, max_new_tokens=12, ignore_eos=True)
                else:
                    stream = client.stream("the fox", temperature=0, max_new_tokens=12, ignore_eos=True)
                    answer = await stream.result()
            call = await spans.call(method)
            assert call.kind is trace.SpanKind.SERVER and call.context is not None and call.parent is not None
            assert call.context.trace_id == asked.trace_id and call.parent.span_id == asked.span_id
            attributes = told(call)
            assert attributes["rpc.method"] == method and attributes["rpc.response.status_code"] == "OK"
            assert attributes["gen_ai.usage.input_tokens"] == answer.usage.prompt_tokens
            assert attributes["gen_ai.usage.output_tokens"] == answer.usage.generated_tokens == 12
            assert attributes["gen_ai.response.finish_reasons"] == ("length",)
            assert attributes["ift_serve.request_id"] == (answer.request_id or attributes["ift_serve.request_id"]) != ""
            phases = spans.below(call)
            assert [phase.name for phase in phases] == ["prepare", "queue", "prefill", "decode"]
            assert all(before.end_time == after.start_time for before, after in pairwise(phases))
            assert phases[0].start_time == call.start_time
            assert (phases[-1].end_time or 0) <= (call.end_time or 0)
            first = ((phases[3].start_time or 0) - (call.start_time or 0)) / 1e9
            assert first == pytest.approx(answer.usage.first_token_seconds, abs=1e-5)
            assert all((phase.end_time or 0) > (phase.start_time or 0) for phase in phases)
            spans.clear()


async def test_a_blocking_client_hands_its_trace_on_too_and_one_without_a_span_nothing(server_config: Make) -> None:
    async with traced(server_config()) as (server, client, spans):

        def ask() -> trace.SpanContext:
            with Client(f"127.0.0.1:{server.port}") as blocking, caller_span() as asked:
                blocking.tokenize("the fox")
                return asked

        asked = await asyncio.to_thread(ask)
        call = await spans.call("ift_serve.v1.InferenceService/Tokenize")
        assert call.parent is not None and call.parent.span_id == asked.span_id
        assert spans.below(call) == []
        spans.clear()
        await client.generate("the fox", max_new_tokens=2)
        assert (await spans.call(GENERATE)).parent is None


@pytest.fixture
def thinking(server_config: Make, tmp_path_factory: pytest.TempPathFactory) -> ServerConfig:
    directory = tiny_llama(tmp_path_factory.mktemp("thinking"), markers=("<think>", "</think>"))
    return server_config(engine={"model": str(directory)})


@pytest.mark.parametrize(
    ("reasoning", "options"),
    [(Vote(samples=4, trace=Trace(budget=6)), {}), (None, {"n": 3})],
    ids=["vote", "candidates"],
)
async def test_sequences_of_a_strategy_are_spans_below_its_decoding(
    thinking: ServerConfig, reasoning: Reasoning | None, options: dict[str, Any]
) -> None:
    async with traced(thinking) as (_, client, spans):
        answer = await client.generate("hi", reasoning=reasoning, max_new_tokens=8, ignore_eos=True, seed=5, **options)
        call = await spans.call(GENERATE)
        decode = spans.below(call)[-1]
        sequences = spans.below(decode)
        assert len(sequences) == answer.usage.sequences == told(call)["ift_serve.sequences"] > 1
        tokens = [told(one)["gen_ai.usage.output_tokens"] for one in sequences]
        conclusion = answer.conclusion
        assert sorted(tokens) == ([8] * 3 if conclusion is None else sorted(b.tokens for b in conclusion.branches))
        assert {told(one)["ift_serve.sequence.ordinal"] for one in sequences} == set(range(len(sequences)))
        shown = [one for one in sequences if "ift_serve.candidate" in told(one)]
        assert len(shown) == len(answer.candidates) and all(one.name.startswith("candidate ") for one in shown)
        for one in sequences:
            assert (decode.start_time or 0) <= (one.start_time or 0) <= (one.end_time or 0) <= (decode.end_time or 0)
            assert told(one)["gen_ai.response.finish_reasons"]


async def test_no_text_of_caller_or_model_is_in_a_span(server_config: Make) -> None:
    secret = "zanzibar quokka"
    async with traced(server_config()) as (_, client, spans):
        answer = await client.generate(
            secret, temperature=0, max_new_tokens=16, ignore_eos=True, stop=["zanzibar stop"]
        )
        with pytest.raises(ServerError) as refused:
            await client.generate("x", output=Regex(f"(?P<{secret}"))
        await client.score(secret, [" quokka again"])
        await until(lambda: sum(span.kind is trace.SpanKind.SERVER for span in spans.all) == 3)
        written = json.dumps([json.loads(span.to_json()) for span in spans.all])
        assert len(answer.text) > 8 and answer.text not in written
        assert refused.value.code == "INVALID_ARGUMENT"
        assert not any(word in written for word in ("zanzibar", "quokka"))
        bad = next(span for span in spans.all if told(span).get("error.type") == "INVALID_ARGUMENT")
        assert bad.status.status_code is trace.StatusCode.UNSET, "a caller's error is none of the server's"


async def test_a_score_is_a_span(server_config: Make) -> None:
    async with traced(server_config()) as (_, client, spans):
        await client.score("the fox", [" jumps", " sleeps"])
        call = await spans.call("ift_serve.v1.InferenceService/Score")
        assert [span.name for span in spans.below(call)] == ["score"]
        assert told(call)["gen_ai.usage.input_tokens"] > 0


async def test_a_call_that_is_left_has_the_phases_that_it_came_to(server_config: Make) -> None:
    async with traced(server_config()) as (server, client, spans):
        stream = client.stream("the fox", temperature=0, max_new_tokens=240, ignore_eos=True)
        await anext(stream)
        stream.cancel()
        call = await spans.call(STREAM)
        assert told(call)["rpc.response.status_code"] == "CANCELLED"
        assert [span.name for span in spans.below(call)] == ["prepare", "queue", "prefill", "decode"]
        spans.clear()
        whole = asyncio.create_task(client.generate("the cat", temperature=0, max_new_tokens=240, ignore_eos=True))
        tokens = server.engine.totals.generated_tokens
        await until(lambda: server.engine.totals.generated_tokens > tokens + 2)
        whole.cancel()
        call = await spans.call(GENERATE)
        names = [span.name for span in spans.below(call)]
        assert names == ["prepare", "queue", "prefill", "decode"], "of an answer that nobody was sent any of"


async def test_a_request_that_fails_in_the_queue_has_been_there_all_the_time(server_config: Make) -> None:
    config = server_config(engine={"max_sequences": 1})
    async with traced(config) as (server, client, spans):
        # Those before it take several times as long as its time, in which even a slow machine reads it.
        before = [asyncio.create_task(answered(client)) for _ in range(60)]
        await until(lambda: server.engine.stats.waiting > 50)
        with pytest.raises(ServerError) as late:
            await client.generate("the cat", max_new_tokens=4, timeout=2.0)
        assert late.value.code == "DEADLINE_EXCEEDED"
        for task in before:
            task.cancel()
        await asyncio.gather(*before, return_exceptions=True)
        call = await spans.call(GENERATE)
        assert call.status.status_code is trace.StatusCode.ERROR
        assert [span.name for span in spans.below(call)] == ["prepare", "queue"]


async def answered(client: AsyncClient) -> None:
    """A long answer."""
    await client.stream("the fox", temperature=0, max_new_tokens=240, ignore_eos=True).result()


async def generate(server: Server, *metadata: tuple[str, str | bytes]) -> None:
    """A call with this metadata, by a program that is not ours."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        request = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(2))
        await stub.Generate(request, metadata=metadata, timeout=60)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        CALLER[:-3],
        CALLER.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        CALLER.replace("00f067aa0ba902b7", "0" * 16),
        CALLER.replace("00-4", "ff-4"),
        CALLER.upper().replace("-01", "-ZZ"),
        CALLER + "-" + "x" * 4000,
    ],
)
async def test_a_context_that_is_none_begins_a_trace_of_its_own(server_config: Make, header: str) -> None:
    async with traced(server_config()) as (server, _, spans):
        await generate(server, ("traceparent", header), ("tracestate", "=,=,;" * 50), ("traceparent-bin", b"\x00\xff"))
        assert (await spans.call(GENERATE)).parent is None


async def test_the_last_of_several_contexts_counts_and_its_state_is_kept(server_config: Make) -> None:
    async with traced(server_config()) as (server, _, spans):
        near = CALLER.replace("00f067aa0ba902b7", "1111111111111111")
        await generate(server, ("traceparent", CALLER), ("traceparent", near), ("tracestate", "a=1,b=2"))
        call = await spans.call(GENERATE)
        assert call.parent is not None and call.parent.span_id == 0x1111111111111111
        assert call.context is not None and call.context.trace_state.to_header() == "a=1,b=2"


async def test_what_is_not_recorded_costs_the_engine_nothing(
    server_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[GenerateRequest] = []
    async with traced(server_config(), ratio=0.0) as (server, client, spans):
        ask = server.engine.generate

        def note(request: GenerateRequest) -> AsyncGenerator[CandidateOutput]:
            sent.append(request)
            return ask(request)

        monkeypatch.setattr(server.engine, "generate", note)
        await client.generate("the fox", max_new_tokens=2)
        with caller_span(TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)):
            await client.generate("the fox", max_new_tokens=2)
        await generate(server, ("traceparent", CALLER.removesuffix("01") + "00"))
        assert [request.traced for request in sent] == [False] * 3
        with caller_span():
            await client.generate("the fox", max_new_tokens=2)
        await spans.call(GENERATE)
        assert sent[-1].traced, "a caller who records has the server record, whatever its own share"
        assert [span.kind for span in spans.all].count(trace.SpanKind.SERVER) == 1


async def test_the_log_names_the_trace(server_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ift_serve.server.call_guard")
    async with traced(server_config()) as (server, _, spans):
        await generate(server, ("traceparent", CALLER))
        await spans.call(GENERATE)
    lines = [record.__dict__ for record in caplog.records if record.message == "call"]
    assert [line["trace_id"] for line in lines] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
