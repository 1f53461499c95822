"""What may be asked of an answer's reasoning: each bound at its edges, each contradiction with both fields."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import text_format

from ift_serve.engine.protocol.reasoning import Branch, Registered, Trace, Vote
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import Limits, ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc, model_pb2, model_pb2_grpc, reasoning_pb2
from tests.server.conftest import greedy, refused, text_prompt
from tests.support.models import tiny_llama
from tests.support.scripted_engine import ScriptedEngine

MakeConfig = Callable[..., ServerConfig]


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("thinking"), markers=("<think>", "</think>"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thinking(thinking_model: Path) -> AsyncIterator[tuple[Any, ScriptedEngine]]:
    """A stub of a server whose model has markers, and its engine, which answers at once."""
    limits = Limits(thought_tokens=100, width=16, total_tokens=5000)
    config = ServerConfig(
        engine={"model": str(thinking_model), "dtype": "float32", "total_blocks": 64, "threads": 1},  # type: ignore[arg-type]
        port=0,
        metrics_port=None,
        limits=limits,
    )
    engine = ScriptedEngine(config.engine)
    server = Server(config, engine)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel), engine
    await server.stop()


def asked(reasoning: str = "", sampling: str = "", **fields: Any) -> pb.GenerateRequest:
    """A request from text in protobuf's own notation."""
    request = pb.GenerateRequest(prompt=text_prompt("hi"), **fields)
    if reasoning:
        text_format.Parse(reasoning, request.reasoning)
    text_format.Parse(sampling, request.sampling)
    return request


OUTSIDE = [
    ("reasoning.max_total_tokens", "max_total_tokens: 0"),
    ("reasoning.trace.message", f'trace {{ message: "{"x" * 4097}" }}'),
    ("reasoning.trace.open_marker", f'trace {{ open_marker: "{"x" * 65}" close_marker: "y" }}'),
    ("reasoning.trace.close_marker", f'trace {{ open_marker: "x" close_marker: "{"y" * 65}" }}'),
    ("reasoning.trace.early_exit", "trace { early_exit {} }"),
    ("reasoning.trace.early_exit.entropy.threshold", "trace { early_exit { entropy { threshold: 0 } } }"),
    ("reasoning.trace.early_exit.entropy.threshold", "trace { early_exit { entropy { threshold: 101 } } }"),
    ("reasoning.trace.early_exit.entropy.threshold", "trace { early_exit { entropy { threshold: nan } } }"),
    ("reasoning.trace.early_exit.entropy.smoothing", "trace { early_exit { entropy { smoothing: 0 } } }"),
    ("reasoning.trace.early_exit.entropy.smoothing", "trace { early_exit { entropy { smoothing: 1.1 } } }"),
    ("reasoning.trace.early_exit.confidence.threshold", "trace { early_exit { confidence { threshold: 1.5 } } }"),
    ("reasoning.trace.early_exit.confidence.trial_tokens", "trace { early_exit { confidence { trial_tokens: 0 } } }"),
    ("reasoning.trace.early_exit.confidence.trial_tokens", "trace { early_exit { confidence { trial_tokens: 257 } } }"),
    ("reasoning.branch.width", "branch { width: 1 }"),
    ("reasoning.branch.width", "branch { width: 21 }"),
    ("reasoning.trace.early_exit.prompt", f'trace {{ early_exit {{ entropy {{}} prompt: "{"x" * 257}" }} }}'),
    ("reasoning.trace.early_exit.entropy.least_probes", "trace { early_exit { entropy { least_probes: 10001 } } }"),
    ("reasoning.branch.aggregate", "branch { aggregate: 7 }"),
    ("reasoning.branch.uncertain_below", "branch { uncertain_below: -0.1 }"),
    ("reasoning.branch.uncertain_below", "branch { uncertain_below: 1.1 }"),
    ("reasoning.branch.span.kind", "branch { span { kind: 9 } }"),
    ("reasoning.branch.span.pattern", "branch { span { kind: ANSWER_KIND_PATTERN } }"),
    ("reasoning.branch.span.pattern", "branch { span { kind: ANSWER_KIND_PATTERN pattern: '(' } }"),
    ("reasoning.branch.span.pattern", f'branch {{ span {{ kind: ANSWER_KIND_PATTERN pattern: "{"x" * 1025}" }} }}'),
    ("reasoning.branch.span.options", "branch { span { kind: ANSWER_KIND_OPTION options: 'A' } }"),
    ("reasoning.branch.span.options", "branch { span { kind: ANSWER_KIND_OPTION options: 'AA' } }"),
    ("reasoning.branch.span.options", "branch { span { kind: ANSWER_KIND_OPTION options: '12' } }"),
    ("reasoning.branch.span.prompt", f'branch {{ span {{ kind: ANSWER_KIND_CONTINUATION prompt: "{"x" * 257}" }} }}'),
    (
        "reasoning.branch.span.continuation_tokens",
        "branch { span { kind: ANSWER_KIND_CONTINUATION continuation_tokens: 0 } }",
    ),
    ("reasoning.vote.samples", "vote { samples: 1 }"),
    ("reasoning.vote.samples", "vote { samples: 300 }"),
    ("reasoning.vote.weight", "vote { weight: 5 }"),
    ("reasoning.vote.stop", "vote { stop: 5 }"),
    ("reasoning.vote.power", "vote { weight: VOTE_WEIGHT_BORDA power: 11 }"),
    ("reasoning.vote.confidence", "vote { confidence: 0.5 }"),
    ("reasoning.vote.confidence", "vote { confidence: 1 }"),
    ("reasoning.vote.confidence", "vote { confidence: nan }"),
    ("reasoning.vote.low_confidence.warm_up", "vote { low_confidence { warm_up: 0 } }"),
    ("reasoning.vote.low_confidence.keep", "vote { low_confidence { keep: 1 } }"),
    ("reasoning.vote.low_confidence.window", "vote { low_confidence { window: 4097 } }"),
    ("reasoning.best_of.samples", "best_of { samples: 0 }"),
    ("reasoning.best_of.by", "best_of { by: 5 }"),
    ("reasoning.registered.name", "registered { name: '' }"),
    ("reasoning.registered.name", "registered { name: 'a b' }"),
    ("reasoning.registered.name", f"registered {{ name: '{'x' * 65}' }}"),
    ("reasoning.registered.name", "registered { name: 'sample' }"),
    ("reasoning.registered.name", "registered { name: 'vote' }"),
    (
        "reasoning.registered.settings",
        f"registered {{ name: 'x' settings {{ fields {{ key: 'a' value {{ string_value: '{'x' * 16384}' }} }} }} }}",
    ),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("field", "reasoning"), OUTSIDE)
async def test_what_is_outside_a_bound_is_named(
    thinking: tuple[Any, ScriptedEngine], field: str, reasoning: str
) -> None:
    stub, engine = thinking
    before = len(engine.requests)
    assert await refused(stub.Generate(asked(reasoning))) == [field]
    assert len(engine.requests) == before


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "reasoning",
    [
        "none {}",
        "max_total_tokens: 1",
        "trace { budget: 0 }",
        "trace { budget: 20 minimum: 20 }",
        f'trace {{ budget: 1 message: "{"x" * 150}" }}',
        'trace { open_marker: "<reason>" close_marker: "</reason>" budget: 5 }',
        "trace { early_exit { entropy { threshold: 100 smoothing: 1 } } }",
        "trace { early_exit { confidence { threshold: 1 trial_tokens: 256 } } }",
        "branch { width: 2 uncertain_below: 1 aggregate: BRANCH_AGGREGATE_SUM }",
        "branch { width: 20 }",
        "trace { early_exit { entropy { least_probes: 10000 } prompt: 'Final answer:' } }",
        "vote { weight: VOTE_WEIGHT_CONFIDENCE }",
        "branch { span { kind: ANSWER_KIND_PATTERN pattern: '([0-9]+)' } }",
        "branch { span { kind: ANSWER_KIND_OPTION options: 'ab' } }",
        "branch { span { kind: ANSWER_KIND_CONTINUATION prompt: 'So' continuation_tokens: 256 } }",
        "branch { span { kind: ANSWER_KIND_LAST_LINE } }",
        "vote { samples: 2 weight: VOTE_WEIGHT_BORDA power: 10 stop: VOTE_STOP_SETTLED }",
        "vote { samples: 256 confidence: 0.99 }",
        "vote { samples: 2 low_confidence { warm_up: 1 keep: 0.99 window: 4096 } }",
        "vote { trace { budget: 3 } stop: VOTE_STOP_ALL }",
        "best_of { samples: 2 trace {} }",
        "registered { name: 'my.own-strategy_2' settings { fields { key: 'k' value { number_value: 3 } } } }",
    ],
)
async def test_what_was_applied_is_told_and_can_be_asked_for(
    thinking: tuple[Any, ScriptedEngine], reasoning: str
) -> None:
    """The effective settings, sent again, are the same request."""
    stub, engine = thinking
    sampling = "" if reasoning.startswith("branch") else "temperature: 0.7"
    first = await stub.Generate(asked(reasoning, f"{sampling} max_new_tokens: 9"))
    again = asked("", f"{sampling} max_new_tokens: 9")
    again.reasoning.CopyFrom(first.reasoning)
    second = await stub.Generate(again)
    assert first.reasoning.WhichOneof("kind") and second.reasoning == first.reasoning
    one, other = engine.requests[-2:]
    assert (one.reasoning, one.strategy, one.limits) == (other.reasoning, other.strategy, other.limits)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "reasoning", "sampling"),
    [
        (["reasoning.max_total_tokens", "sampling.n"], "max_total_tokens: 2", "n: 3"),
        (["reasoning.branch", "sampling.n"], "branch {}", "n: 2"),
        (["reasoning.vote", "sampling.n"], "vote {}", "n: 2 temperature: 1"),
        (["reasoning.best_of", "sampling.n"], "best_of {}", "n: 3"),
        (["reasoning.vote", "sampling.temperature"], "vote {}", "temperature: 0"),
        (["reasoning.best_of", "sampling.temperature"], "best_of {}", "temperature: 0"),
        (["reasoning.branch", "sampling.temperature"], "branch {}", "temperature: 0.5"),
        (
            ["reasoning.branch", "sampling.adaptive"],
            "branch {}",
            "adaptive { rule: TEMPERATURE_RULE_ENTROPY }",
        ),
        (["reasoning.branch", "sampling.target_probability"], "branch {}", "target_probability { target: 0.5 }"),
        (["reasoning.best_of.by", "adapter"], "best_of { by: BEST_OF_MEASURE_ADHERENCE }", "temperature: 1"),
        (["reasoning.auto", "adapter"], "auto {}", ""),
        (["reasoning.vote.power", "reasoning.vote.weight"], "vote { power: 1 }", ""),
        (["reasoning.vote.confidence", "reasoning.vote.stop"], "vote { confidence: 0.9 stop: VOTE_STOP_ALL }", ""),
        (
            ["reasoning.vote.low_confidence.warm_up", "reasoning.vote.samples"],
            "vote { samples: 4 low_confidence { warm_up: 4 } }",
            "",
        ),
        (["reasoning.branch.span.pattern", "reasoning.branch.span.kind"], "branch { span { pattern: 'x' } }", ""),
        (["reasoning.branch.span.prompt", "reasoning.branch.span.kind"], "branch { span { prompt: 'x' } }", ""),
        (["reasoning.vote.span.kind", "reasoning.vote"], "vote { span { kind: ANSWER_KIND_CONTINUATION } }", ""),
        (["reasoning.trace.minimum", "reasoning.trace.budget"], "trace { budget: 3 minimum: 4 }", ""),
        (["reasoning.trace.open_marker", "reasoning.trace.close_marker"], "trace { open_marker: '<a>' }", ""),
        (
            ["reasoning.trace.open_marker", "reasoning.trace.close_marker"],
            "trace { open_marker: '<a>' close_marker: '<a>' }",
            "",
        ),
        (["reasoning.trace.budget", "sampling.max_new_tokens"], "trace { budget: 100 }", "max_new_tokens: 200"),
    ],
)
async def test_what_cannot_be_combined_names_both_fields(
    thinking: tuple[Any, ScriptedEngine], fields: list[str], reasoning: str, sampling: str
) -> None:
    stub, _ = thinking
    request = asked(reasoning, sampling)
    assert await refused(stub.Generate(request)) == fields
    streamed = pb.StreamGenerateRequest.FromString(request.SerializeToString())
    assert await refused(stub.StreamGenerate(streamed).read()) == fields


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        (["sampling.adaptive", "sampling.temperature"], "temperature: 0 adaptive { rule: TEMPERATURE_RULE_ENTROPY }"),
        (["sampling.adaptive.rule", "adapter"], "adaptive {}"),
        (["sampling.adaptive.base", "sampling.adaptive.rule"], "adaptive { base: 0.5 }"),
        (["sampling.adaptive.theta", "sampling.adaptive.rule"], "adaptive { rule: TEMPERATURE_RULE_HEAD theta: 1 }"),
        (["sampling.adaptive.rule"], "adaptive { rule: 9 }"),
        (["sampling.adaptive.min"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY min: -0.5 }"),
        (["sampling.adaptive.max"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY max: 0 }"),
        (["sampling.adaptive.max"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY max: nan }"),
        (["sampling.adaptive.greedy_below"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY greedy_below: -1 }"),
        (["sampling.adaptive.greedy_below"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY greedy_below: 11 }"),
        (
            ["sampling.adaptive.greedy_below", "sampling.adaptive.max"],
            "adaptive { rule: TEMPERATURE_RULE_ENTROPY max: 0.5 greedy_below: 0.75 } temperature: 0.5",
        ),
        (
            ["sampling.adaptive.greedy_below", "sampling.adaptive.min"],
            "adaptive { rule: TEMPERATURE_RULE_ENTROPY min: 0.5 greedy_below: 0.5 }",
        ),
        (["sampling.adaptive.scale"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY scale: 0 }"),
        (["sampling.adaptive.base"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY base: 1 }"),
        (["sampling.adaptive.theta"], "adaptive { rule: TEMPERATURE_RULE_ENTROPY theta: 11 }"),
        (
            ["sampling.adaptive.min", "sampling.adaptive.max"],
            "adaptive { rule: TEMPERATURE_RULE_ENTROPY min: 2 max: 1 }",
        ),
        (
            ["sampling.temperature", "sampling.adaptive.max"],
            "temperature: 1.5 adaptive { rule: TEMPERATURE_RULE_ENTROPY max: 1 }",
        ),
        (
            ["sampling.temperature", "sampling.adaptive.min"],
            "temperature: 0.5 adaptive { rule: TEMPERATURE_RULE_ENTROPY min: 0.75 }",
        ),
        (["sampling.target_probability.target"], "target_probability {}"),
        (["sampling.target_probability.target"], "target_probability { target: 1 }"),
        (["sampling.target_probability.decay"], "target_probability { target: 0.5 decay: 0.995 }"),
        (["sampling.target_probability", "sampling.temperature"], "temperature: 0 target_probability { target: 0.5 }"),
        (["sampling.top_n_sigma"], "top_n_sigma: -1"),
        (["sampling.top_h"], "top_h: 1.5"),
        (["sampling.reasoning_temperature"], "reasoning_temperature: 10.5"),
    ],
)
async def test_what_varies_from_token_to_token_has_bounds(
    thinking: tuple[Any, ScriptedEngine], fields: list[str], sampling: str
) -> None:
    assert await refused(thinking[0].Generate(asked("", sampling))) == fields


@pytest.mark.asyncio(loop_scope="module")
async def test_what_varies_from_token_to_token_is_applied_and_told(thinking: tuple[Any, ScriptedEngine]) -> None:
    stub, engine = thinking
    rule = "adaptive { rule: TEMPERATURE_RULE_ENTROPY min: 0.25 max: 0.75 greedy_below: 0.5 } temperature: 0.75"
    told = await stub.Generate(
        asked("", f"{rule} top_n_sigma: 2 p_less: true target_probability {{ target: 0.5 decay: 0.99 }}")
    )
    sent = engine.requests[-1].sampling
    assert sent.adaptive is not None and (sent.adaptive.min, sent.adaptive.max, sent.adaptive.scale) == (0.25, 0.75, 1)
    assert (sent.top_n_sigma, sent.p_less, sent.adaptive.greedy_below) == (2, True, 0.5)
    assert sent.target_probability is not None and sent.target_probability.decay == 0.99
    again = pb.GenerateRequest(prompt=text_prompt("hi"), sampling=told.sampling)
    assert (await stub.Generate(again)).sampling == told.sampling and told.sampling.adaptive.theta > 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", ["json_schema", "regex", "grammar"])
async def test_the_engine_is_told_the_form(thinking: tuple[Any, ScriptedEngine], kind: str) -> None:
    stub, engine = thinking
    await stub.Generate(asked(output=pb.Output(**{kind: "x"})))
    told = engine.requests[-1].output
    assert told is not None and (told.kind, told.text) == (kind, "x")


@pytest.mark.asyncio(loop_scope="module")
async def test_case_9_what_goes_beyond_a_cap_is_lowered_and_told(thinking: tuple[Any, ScriptedEngine]) -> None:
    stub, engine = thinking
    answer = await stub.Generate(
        asked("trace { budget: 4000 minimum: 120 } max_total_tokens: 99999", "max_new_tokens: 5")
    )
    assert (answer.reasoning.trace.budget, answer.reasoning.trace.minimum) == (100, 100)
    assert answer.reasoning.max_total_tokens == 5000
    sent = engine.requests[-1]
    assert isinstance(sent.reasoning, Trace) and sent.reasoning.budget == 100 and sent.limits.total_tokens == 5000
    assert (await stub.Generate(asked("branch { width: 20 }"))).reasoning.branch.width == 16
    assert (await stub.Generate(asked("vote { samples: 200 }"))).reasoning.vote.samples == 16
    vote = (await stub.Generate(asked("vote { samples: 200 low_confidence { warm_up: 100 } }"))).reasoning.vote
    assert (vote.samples, vote.low_confidence.warm_up) == (16, 15)
    assert (await stub.Generate(asked("max_total_tokens: 40"))).reasoning.max_total_tokens == 40
    assert engine.requests[-1].limits.total_tokens == 40


@pytest.mark.asyncio(loop_scope="module")
async def test_case_11_an_unset_budget_is_what_the_context_leaves_and_is_told(
    thinking: tuple[Any, ScriptedEngine],
) -> None:
    stub, engine = thinking
    context, prompt = 256, len((await stub.Tokenize(pb.TokenizeRequest(prompt=text_prompt("hi")))).token_ids)
    answer = await stub.Generate(asked("trace {}", "max_new_tokens: 200"))
    # One token opens the thought and one closes it.
    assert answer.reasoning.trace.budget == context - prompt - 2 - 200
    both_open = await stub.Generate(asked("trace {}"))
    sent = engine.requests[-1]
    assert both_open.reasoning.trace.budget == 100
    assert 100 <= both_open.sampling.max_new_tokens == sent.sampling.max_new_tokens <= context - prompt - 2 - 100
    assert (both_open.reasoning.trace.open_marker, both_open.reasoning.trace.close_marker) == ("<think>", "</think>")


@pytest.mark.asyncio(loop_scope="module")
async def test_case_10_a_total_holds_for_the_whole_request(thinking: tuple[Any, ScriptedEngine]) -> None:
    stub, engine = thinking
    await stub.Generate(asked("vote { samples: 12 trace { budget: 50 } } max_total_tokens: 300"))
    sent = engine.requests[-1]
    assert sent.strategy == "vote" and isinstance(sent.reasoning, Vote) and sent.limits.total_tokens == 300
    assert sent.limits.sequences >= 24


@pytest.mark.asyncio(loop_scope="module")
async def test_settings_reach_the_engine_as_they_are(thinking: tuple[Any, ScriptedEngine]) -> None:
    stub, engine = thinking
    settings = "fields { key: 'deep' value { list_value { values { bool_value: true } } } }"
    await stub.Generate(asked(f"registered {{ name: 'mine' settings {{ {settings} }} }}", "n: 2 stop: 'END'"))
    sent = engine.requests[-1]
    assert sent.strategy == "mine" and sent.reasoning == Registered(name="mine", settings={"deep": [True]})
    assert sent.stop == ["END"] and sent.sampling.candidates == 2
    answer = await stub.Generate(asked("branch {}"))
    sent = engine.requests[-1]
    assert sent.strategy == "branch" and isinstance(sent.reasoning, Branch)
    assert sent.sampling.temperature == answer.sampling.temperature == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_of_today_are_sent_as_ever(thinking: tuple[Any, ScriptedEngine]) -> None:
    stub, engine = thinking
    answer = await stub.Generate(asked("", "stop: 'END' temperature: 0.5 reasoning_temperature: 1.5"))
    assert engine.requests[-1].sampling.reasoning_temperature == answer.sampling.reasoning_temperature == 1.5
    sent = engine.requests[-1]
    assert (sent.strategy, sent.reasoning, sent.stop) == ("sample", None, [])
    assert not answer.HasField("reasoning") and not answer.HasField("conclusion")
    assert answer.sampling.temperature == 0.5


async def test_a_model_without_markers_does_not_trace(stub: Any) -> None:
    fields = ["reasoning.trace", "reasoning.trace.open_marker"]
    assert await refused(stub.Generate(asked("trace {}"))) == fields
    nested = ["reasoning.vote.trace", "reasoning.vote.trace.open_marker"]
    assert await refused(stub.Generate(asked("vote { trace {} }", "temperature: 1"))) == nested


async def test_a_strategy_that_the_engine_does_not_know_is_refused(stub: Any) -> None:
    assert await refused(stub.Generate(asked("registered { name: 'nobodys' }"))) == ["reasoning"]


async def test_the_operators_caps_are_shown(server_config: MakeConfig, model_directory: Path) -> None:
    config = server_config(limits=Limits(thought_tokens=7, width=3, total_tokens=11))
    server = Server(config, local_engine(config.engine))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub: Any = model_pb2_grpc.ModelServiceStub(channel)
            model = await stub.GetModel(model_pb2.GetModelRequest())
            assert (model.limits.thought_tokens, model.limits.width, model.limits.total_tokens) == (7, 3, 11)
            assert model.thought_opening == ""
            generate: Any = inference_pb2_grpc.InferenceServiceStub(channel)
            answer = await generate.Generate(
                pb.GenerateRequest(
                    prompt=text_prompt(), sampling=greedy(30), reasoning=reasoning_pb2.Reasoning(max_total_tokens=99)
                )
            )
            assert answer.reasoning.max_total_tokens == 11
            assert answer.usage.drawn_tokens == 11 == answer.sampling.max_new_tokens
            assert answer.candidates[0].finish_reason == pb.FINISH_REASON_LENGTH
    finally:
        await server.stop()
