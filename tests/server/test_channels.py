"""Thought and answer as callers read them, whatever the engine says and however it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import BranchSummary, CandidateOutput, Conclusion
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.server.answers import CandidateText, Wanted
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.metrics import Metrics
from ift_serve.text.phases import PhaseState
from ift_serve.text.token_texts import TokenDecoder
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc, reasoning_pb2
from tests.server.conftest import text_prompt
from tests.support.models import tiny_llama
from tests.support.phases import builder
from tests.support.scripted_engine import ScriptedEngine, said
from tests.support.tiny_tokenizers import tokenizer_of

EOS = 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("thinking"), markers=("<think>", "</think>"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted(directory: Path) -> AsyncIterator[tuple[Any, ScriptedEngine, Tokenizer]]:
    engine = ScriptedEngine(EngineConfig(model=str(directory), dtype="float32", total_blocks=64, threads=1))
    server = Server(ServerConfig(engine=engine.config, port=0, metrics_port=None), engine)
    await server.start()
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel), engine, tokenizer
    await server.stop()


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def cut(token_ids: Sequence[int], sizes: Sequence[int], reason: FinishReason, **fields: Any) -> list[CandidateOutput]:
    """Outputs of so many tokens each; the last has what is left, and the end."""
    places = [0]
    for size in sizes:
        places.append(min(len(token_ids), places[-1] + size))
    outputs = [said(token_ids[first:last]) for first, last in pairwise(places)]
    return [*outputs, said(token_ids[places[-1] :], reason, **fields)]


def request(**fields: Any) -> dict[str, Any]:
    return {"prompt": text_prompt("hi"), "details": pb.Details(tokens=True), **fields}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("sizes", [[], [1] * 60, [3, 1, 4, 1, 5], [7, 7, 7]])
async def test_case_13_a_stream_joins_to_the_unary_answer_channel_by_channel(
    scripted: tuple[Any, ScriptedEngine, Tokenizer], sizes: list[int]
) -> None:
    stub, engine, tokenizer = scripted
    written = [*ids(tokenizer, "<think>the fox é</think>to the river <"), EOS]
    engine.outputs = cut(written, sizes, FinishReason.EOS)
    whole = (await stub.Generate(pb.GenerateRequest(**request()))).candidates[0]
    assert (whole.reasoning, whole.text) == ("the fox é", "to the river <")
    deltas = [d async for m in stub.StreamGenerate(pb.StreamGenerateRequest(**request())) for d in m.deltas]
    assert "".join(d.reasoning for d in deltas) == whole.reasoning
    assert "".join(d.text for d in deltas) == whole.text
    tokens = [t for d in deltas for t in d.tokens]
    assert tokens == list(whole.tokens) and [t.token_id for t in tokens] == written


@pytest.mark.asyncio(loop_scope="module")
async def test_case_29_tokens_bear_their_channel_and_what_was_forced(
    scripted: tuple[Any, ScriptedEngine, Tokenizer],
) -> None:
    stub, engine, tokenizer = scripted
    written = [*ids(tokenizer, "<think>fox</think>dog"), EOS]
    close = written.index(ids(tokenizer, "</think>")[0])
    engine.outputs = [
        said(
            written,
            FinishReason.EOS,
            forced=[0, close],
            usage=RequestUsage(prompt_tokens=1, drawn_tokens=40, forced_tokens=9, sequences=5),
        )
    ]
    details = pb.Details(statistics=True)
    answer = await stub.Generate(pb.GenerateRequest(**request(details=details)))
    tokens = answer.candidates[0].tokens
    assert [t.channel for t in tokens][:: len(tokens) - 1] == [pb.CHANNEL_MARKER, pb.CHANNEL_ANSWER]
    texts = {channel: "".join(t.text for t in tokens[:-1] if t.channel == channel) for channel in (1, 2, 3)}
    assert texts == {1: "fox", 2: "dog", 3: "<think></think>"}
    assert [place for place, t in enumerate(tokens) if t.forced] == [0, close]
    assert all(t.HasField("statistics") != t.forced for t in tokens)
    assert [round(t.statistics.temperature, 3) for t in tokens if not t.forced] == [0.7] * (len(tokens) - 2)
    usage = answer.usage
    assert (usage.reasoning_tokens, usage.answer_tokens) == (close - 1, len(written) - close - 1)
    assert (usage.generated_tokens, usage.drawn_tokens, usage.forced_tokens, usage.sequences) == (
        len(written),
        40,
        9,
        5,
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_case_22_a_thought_that_is_cut_is_no_answer(scripted: tuple[Any, ScriptedEngine, Tokenizer]) -> None:
    stub, engine, tokenizer = scripted
    engine.outputs = [said(ids(tokenizer, "<think>the answer is 4"), FinishReason.LENGTH)]
    answer = await stub.Generate(pb.GenerateRequest(**request()))
    candidate = answer.candidates[0]
    assert (candidate.reasoning, candidate.text) == ("the answer is 4", "")
    assert candidate.finish_reason == pb.FINISH_REASON_LENGTH and answer.usage.answer_tokens == 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("sizes", [[], [1] * 60])
async def test_cases_23_and_24_stop_strings_are_dormant_in_thoughts(
    scripted: tuple[Any, ScriptedEngine, Tokenizer], sizes: list[int]
) -> None:
    stub, engine, tokenizer = scripted
    written = ids(tokenizer, "<think>the dog\n\nQuestion: fox</think>to the river\n\nQuestion: more")
    engine.outputs = cut(written, sizes, FinishReason.LENGTH)
    stops = ["Question:", "</s>", "<|im_end|>", "\n\n"]
    candidate = (await stub.Generate(pb.GenerateRequest(**request(sampling=pb.Sampling(stop=stops))))).candidates[0]
    assert candidate.reasoning == "the dog\n\nQuestion: fox" and candidate.text == "to the river"
    assert candidate.finish_reason == pb.FINISH_REASON_STOP and candidate.matched_stop.text == "\n\n"
    # Its tokens end with the one that completes the stop string.
    shown = "".join(t.text for t in candidate.tokens if t.channel == pb.CHANNEL_ANSWER)
    assert shown.startswith("to the river\n\n") and "more" not in shown


@pytest.mark.asyncio(loop_scope="module")
async def test_case_15_a_marker_within_an_answer_is_what_the_phase_machine_says(
    scripted: tuple[Any, ScriptedEngine, Tokenizer],
) -> None:
    """Own markers of text: in the middle of an answer they are text."""
    stub, engine, tokenizer = scripted
    engine.outputs = [said(ids(tokenizer, "<r>fox</r>a <r> is text"), FinishReason.LENGTH)]
    reasoning = reasoning_pb2.Reasoning(trace=reasoning_pb2.Trace(open_marker="<r>", close_marker="</r>"))
    candidate = (await stub.Generate(pb.GenerateRequest(**request(reasoning=reasoning)))).candidates[0]
    assert (candidate.reasoning, candidate.text) == ("fox", "a <r> is text")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_decided_is_told_with_its_grounds(scripted: tuple[Any, ScriptedEngine, Tokenizer]) -> None:
    stub, engine, tokenizer = scripted
    branches = [
        BranchSummary(answer="4", confidence=0.75, votes=3, tokens=12, ended=FinishReason.EOS, chosen=True),
        BranchSummary(answer="5", confidence=0.25, votes=1, tokens=9),
    ]
    conclusion = Conclusion(mode="vote", answer="4", confidence=0.75, branches=branches)
    engine.outputs = [said(ids(tokenizer, "it is 4"), FinishReason.STOP, conclusion=conclusion)]
    whole = await stub.Generate(pb.GenerateRequest(**request()))
    assert (whole.conclusion.mode, whole.conclusion.answer, whole.conclusion.confidence) == ("vote", "4", 0.75)
    told = [(b.answer, b.confidence, b.votes, b.tokens, b.finish_reason, b.chosen) for b in whole.conclusion.branches]
    assert told == [
        ("4", 0.75, 3, 12, pb.FINISH_REASON_EOS, True),
        ("5", 0.25, 1, 9, pb.FINISH_REASON_UNSPECIFIED, False),
    ]
    candidate = whole.candidates[0]
    assert (candidate.confidence, candidate.votes) == (0.75, 3)
    # A strategy ends a candidate behind any token: that one is text.
    assert candidate.text == "it is 4" and candidate.finish_reason == pb.FINISH_REASON_STOP
    assert not candidate.HasField("matched_stop")
    *_, last = [m async for m in stub.StreamGenerate(pb.StreamGenerateRequest(**request()))]
    assert last.conclusion == whole.conclusion and last.deltas[-1].confidence == 0.75


@pytest.mark.asyncio(loop_scope="module")
async def test_case_21_candidates_share_nothing(scripted: tuple[Any, ScriptedEngine, Tokenizer]) -> None:
    stub, engine, tokenizer = scripted
    engine.outputs = cut(ids(tokenizer, "<think>fox</think>dog"), [2, 1], FinishReason.LENGTH)
    answer = await stub.Generate(pb.GenerateRequest(**request(sampling=pb.Sampling(n=3))))
    assert [(c.reasoning, c.text) for c in answer.candidates] == [("fox", "dog")] * 3
    assert answer.usage.reasoning_tokens == 3 * len(ids(tokenizer, "fox"))


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace", "unigram"])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 9), max_size=8), details=st.booleans())
def test_channels_and_tokens_do_not_depend_on_how_outputs_were_joined(
    kind: str, data: st.DataObject, sizes: list[int], details: bool
) -> None:
    """Any tokens at all, markers among them; and every token is told of once, in order."""
    tokenizer = tokenizer_of(kind)
    decoder = TokenDecoder(tokenizer)
    marked = [tokenizer.token_to_id("<think>"), tokenizer.token_to_id("</think>")]
    any_token = st.integers(0, tokenizer.get_vocab_size() - 1) | st.sampled_from(marked)
    token_ids = data.draw(st.lists(any_token, max_size=30))
    phases = builder(tokenizer, "<think></think>").settings()

    def read(outputs: list[CandidateOutput]) -> tuple[str, str, list[int], str]:
        state = PhaseState.begin(phases)
        candidate = CandidateText(0, decoder, ["fox"], Wanted(details, False), state=state)
        deltas = []
        for output in outputs:
            delta = candidate.add(output, METRICS)
            deltas += [] if delta is None else [delta]
            if candidate.is_finished:
                break
        tokens = [token for delta in deltas for token in delta.tokens]
        if details:
            assert [t.token_id for t in tokens] == token_ids[: candidate.tokens]
        reasoning, answer = "".join(d.reasoning for d in deltas), "".join(d.text for d in deltas)
        return reasoning, answer, [t.channel for t in tokens], deltas[-1].matched_stop.text

    alone = read(cut(token_ids, [1] * len(token_ids), FinishReason.LENGTH))
    assert read(cut(token_ids, sizes, FinishReason.LENGTH)) == alone


METRICS = Metrics()
