"""Settings of reasoning on their way to the server, and thoughts and decisions on their way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from ift_serve.client import (
    AdaptiveTemperature,
    AnswerSpan,
    AsyncClient,
    Auto,
    BestOf,
    Branch,
    Conclusion,
    ConfidenceExit,
    EntropyExit,
    InvalidRequestError,
    LowConfidence,
    NoReasoning,
    Reasoning,
    Registered,
    ServerError,
    TargetProbability,
    Trace,
    Vote,
)
from ift_serve.client.convert import sampling_fields, sampling_message
from ift_serve.client.reasoning_messages import applied, reasoning_message
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol import generate as engine
from ift_serve.engine.protocol import reasoning as engine_reasoning
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.support.models import tiny_llama
from tests.support.scripted_engine import ScriptedEngine, said

FULL: list[Reasoning] = [
    NoReasoning(),
    Trace(5, 2, "so", "<a>", "</a>", EntropyExit(0.5, 0.25, 9, "So")),
    Trace(5, early_exit=ConfidenceExit(0.75, 7, "Answer:")),
    Branch(3, "sum", 0.5, AnswerSpan("pattern", pattern="[0-9]+")),
    Vote(4, "borda", 0.5, "settled", 0.75, LowConfidence(2, 0.5, 16), AnswerSpan("option", options="AB"), Trace(3)),
    BestOf(5, "adherence", Trace(9)),
    Auto(Trace(3), Branch(2)),
    Registered("mine", {"a": [1.0, {"b": True}], "c": None}),
]


@pytest.mark.parametrize("settings", FULL, ids=lambda settings: type(settings).__name__)
def test_every_setting_goes_and_comes_back(settings: Reasoning) -> None:
    message = reasoning_message(settings, 77)
    assert message is not None
    told = applied(message)
    assert type(told.settings) is type(settings) and told.max_total_tokens == 77
    again = reasoning_message(told.settings, 77)
    assert again == message


def test_what_is_left_open_is_not_sent() -> None:
    message = reasoning_message(Vote(), None)
    assert message is not None and message.WhichOneof("kind") == "vote"
    assert not message.vote.ListFields() and not message.HasField("max_total_tokens")
    assert reasoning_message(None, None) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Vote(weight="most"), "reasoning.vote.weight: 'most' is not one of majority, borda"),  # type: ignore[arg-type]
        (Trace(budget=-1), "reasoning.trace.budget"),
        (Trace(budget="many"), "reasoning.trace.budget"),  # type: ignore[arg-type]
        (Registered("x", {"a": object()}), "reasoning.registered.settings"),
    ],
)
def test_what_cannot_be_sent_is_named(settings: Reasoning, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("[", "\\[")):
        reasoning_message(settings, None)


def test_lone_surrogates_and_foreign_settings_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"reasoning\.trace\.message"):
        reasoning_message(Trace(message="\ud800"), None)
    with pytest.raises(TypeError, match="none of NoReasoning, Trace"):
        reasoning_message("trace", None)  # type: ignore[arg-type]


def test_what_varies_from_token_to_token_goes_and_comes_back() -> None:
    options = {
        "adaptive": AdaptiveTemperature(min=0.25, max=2.0, scale=0.5, rule="entropy", base=0.75, theta=0.125),
        "target_probability": TargetProbability(0.5, 0.75),
        "reasoning_temperature": 0.25,
    }
    assert sampling_fields(sampling_message(options)) == options
    assert sampling_message({"adaptive": AdaptiveTemperature()}).HasField("adaptive"), "what is asked for is sent"
    with pytest.raises(ValueError, match="adaptive must be of type AdaptiveTemperature, not dict"):
        sampling_message({"adaptive": {"min": 1}})


@pytest_asyncio.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[str, ScriptedEngine]]:
    directory = tiny_llama(tmp_path, markers=("<think>", "</think>"))
    talk = ScriptedEngine(EngineConfig(model=str(directory), dtype="float32", total_blocks=64, threads=1))
    server = Server(ServerConfig(engine=talk.config, port=0, metrics_port=None), talk)
    await server.start()
    ids = Tokenizer.from_file(str(directory / "tokenizer.json")).encode
    written = ids("<think>the fox</think>it is 4", add_special_tokens=False).ids
    branches = [
        engine.BranchSummary(answer="4", confidence=0.75, votes=2, tokens=9, ended=FinishReason.EOS, chosen=True),
        engine.BranchSummary(answer="5", confidence=0.5),
    ]
    decided = engine.Conclusion(mode="vote", answer="4", confidence=0.75, branches=branches)
    talk.outputs = [said(written[:3]), said(written[3:], FinishReason.STOP, forced=[0], conclusion=decided)]
    yield f"127.0.0.1:{server.port}", talk
    await server.stop()


async def test_a_stream_and_a_whole_answer_say_the_same(scripted: tuple[str, ScriptedEngine]) -> None:
    address, talk = scripted
    options: dict[str, Any] = {
        "reasoning": Vote(samples=3, trace=Trace(20)),
        "max_total_tokens": 500,
        "temperature": 1.0,
    }
    async with AsyncClient(address) as client:
        assert (await client.model()).thought_markers == ("<think>", "</think>")
        whole = await client.generate("hi", statistics=True, seed=1, **options)
        stream = client.stream("hi", statistics=True, seed=1, **options)
        pieces = [piece async for piece in stream]
        streamed = await stream.result()
    sent = talk.requests[0]
    assert sent.strategy == "vote" and isinstance(sent.reasoning, engine_reasoning.Vote)
    assert sent.reasoning.samples == 3 and sent.limits.total_tokens == 500
    assert (whole.reasoning, whole.text, whole.answer) == ("the fox", "it is 4", "4")
    assert whole.candidates == streamed.candidates and whole.conclusion == streamed.conclusion
    assert isinstance(whole.conclusion, Conclusion) and whole.conclusion.mode == "vote"
    assert [(b.answer, b.votes, b.finish_reason, b.chosen) for b in whole.branches] == [
        ("4", 2, "eos", True),
        ("5", 0, "", False),
    ]
    assert whole.applied_reasoning == streamed.applied_reasoning and whole.applied_reasoning is not None
    assert isinstance(whole.applied_reasoning.settings, Vote) and whole.applied_reasoning.settings.stop == "posterior"
    assert "".join(piece.reasoning for piece in pieces) == whole.reasoning
    candidate = whole.candidates[0]
    assert (candidate.confidence, candidate.votes) == (0.75, 2)
    assert "".join(t.text for t in candidate.tokens if t.channel == "answer") == whole.text
    assert [t.margin is None for t in candidate.tokens] == [t.forced for t in candidate.tokens]
    assert whole.usage.reasoning_tokens + whole.usage.answer_tokens + 2 == whole.usage.generated_tokens


async def test_a_contradiction_names_both_fields(scripted: tuple[str, ScriptedEngine]) -> None:
    async with AsyncClient(scripted[0]) as client:
        with pytest.raises(ServerError) as caught:
            await client.generate("hi", reasoning=Branch(), n=2)
        assert [v.field for v in caught.value.violations] == ["reasoning.branch", "sampling.n"]
