"""Answers as large as they may be: in pieces, in order, the same as token by token, and bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import CandidateOutput, TokenStatistics
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.server.config import Limits, ServerConfig
from ift_serve.server.pieces import WholeCandidate, entries, pieces
from ift_serve.sharing.loop_shares import FREE_ENTRIES, LoopShares
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.server.conftest import text_prompt, trailing
from tests.support.serving import serving

Make = Callable[..., ServerConfig]
STATISTICS = TokenStatistics(-0.5, 0.6, 0.2, 1.0, -3.0, 1.0)
LARGE: dict[str, Any] = {
    "prompt": text_prompt(),
    "sampling": pb.Sampling(n=8, max_new_tokens=60, ignore_eos=True, seed=3),
    "details": pb.Details(statistics=True, top_alternatives=20),
}


async def test_a_large_answer_is_the_same_whole_and_streamed(server_config: Make) -> None:
    async with (
        serving(server_config(engine={"total_blocks": 256})) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        whole = await stub.Generate(pb.GenerateRequest(**LARGE), timeout=120)
        streamed = [pb.Candidate(index=index) for index in range(8)]
        largest = 0
        async for message in stub.StreamGenerate(pb.StreamGenerateRequest(**LARGE), timeout=120):
            largest = max(largest, sum(len(t.alternatives) + 1 for d in message.deltas for t in d.tokens))
            for delta in message.deltas:
                candidate = streamed[delta.index]
                candidate.text += delta.text
                candidate.tokens.extend(delta.tokens)
                candidate.finish_reason = delta.finish_reason
    assert [len(candidate.tokens) for candidate in whole.candidates] == [60] * 8
    assert list(whole.candidates) == streamed
    assert largest <= FREE_ENTRIES + 3 * 21, "a piece, and tokens of a character that had not ended before it"
    assert whole.usage.generated_tokens == 480 and whole.seed == 3 and whole.model


@pytest.mark.parametrize("streamed", [False, True])
async def test_more_than_may_be_asked_is_refused_by_its_fields(server_config: Make, streamed: bool) -> None:
    limits = Limits(answer_entries=2048, stream_entries=4096)
    async with (
        serving(server_config(limits=limits, engine={"total_blocks": 256})) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def ask(tokens: int) -> None:
            options: dict[str, Any] = {
                "prompt": text_prompt(),
                "sampling": pb.Sampling(n=2, max_new_tokens=tokens, ignore_eos=True),
                "details": pb.Details(top_alternatives=15),
            }
            if streamed:
                async for _ in stub.StreamGenerate(pb.StreamGenerateRequest(**options), timeout=60):
                    pass
            else:
                await stub.Generate(pb.GenerateRequest(**options), timeout=60)

        most = (limits.stream_entries if streamed else limits.answer_entries) // 32
        await ask(most)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(most + 1)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert ("stream the answer" in (caught.value.details() or "")) is not streamed
        status, bad = status_pb2.Status(), error_details_pb2.BadRequest()
        status.ParseFromString(trailing(caught.value)["grpc-status-details-bin"])
        assert any(detail.Unpack(bad) for detail in status.details)
        assert [v.field for v in bad.field_violations] == [
            "sampling.n",
            "sampling.max_new_tokens",
            "details.top_alternatives",
        ]


async def test_more_tokens_than_may_be_scored_are_refused(server_config: Make) -> None:
    async with (
        serving(server_config(limits=Limits(answer_entries=1024))) as (server, _),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        one = pb.Continuation(tokens=pb.TokenIds(token_ids=[5] * 100))
        for count, code in ((10, grpc.StatusCode.OK), (11, grpc.StatusCode.INVALID_ARGUMENT)):
            scored = pb.ScoreContinuations(context=text_prompt(), continuations=[one] * count)
            assert await stub.Score(pb.ScoreRequest(continuations=scored), timeout=60).code() is code
        text = pb.ScoreRequest(text=pb.ScoreText(text="the fox " * 2000))
        assert await stub.Score(text, timeout=60).code() is grpc.StatusCode.INVALID_ARGUMENT


@given(tokens=st.integers(0, 900), alternatives=st.integers(0, 20), ends=st.booleans())
def test_pieces_are_bounded_and_make_the_output(tokens: int, alternatives: int, ends: bool) -> None:
    output = CandidateOutput(
        request_id="r",
        candidate=1,
        token_ids=list(range(tokens)),
        statistics=[STATISTICS] * tokens,
        top_log_probs=[[(a, -1.0) for a in range(alternatives)]] * tokens if alternatives else [],
        finish_reason=FinishReason.EOS if ends else None,
        request_finished=ends,
        usage=RequestUsage(prompt_tokens=3),
    )
    cut = list(pieces(output))
    assert all(entries(piece) <= FREE_ENTRIES for piece in cut)
    assert [t for piece in cut for t in piece.token_ids] == output.token_ids
    assert [t for piece in cut for t in piece.top_log_probs] == output.top_log_probs
    assert all(len(piece.statistics) == len(piece.token_ids) for piece in cut)
    assert [piece.finish_reason for piece in cut] == [None] * (len(cut) - 1) + [output.finish_reason]
    assert [piece.request_finished for piece in cut] == [False] * (len(cut) - 1) + [ends]
    assert [piece.usage for piece in cut] == [output.usage] + [None] * (len(cut) - 1)


@given(
    texts=st.lists(st.text(max_size=200), max_size=8),
    index=st.integers(0, 2**31),
    tokens=st.integers(0, 200),
    stop=st.none() | st.text(max_size=5),
)
def test_a_candidate_serialised_in_parts_is_read_as_one(
    texts: list[str], index: int, tokens: int, stop: str | None
) -> None:
    whole, expected = WholeCandidate(index), pb.Candidate(index=index, text="".join(texts))
    for text in texts:
        delta = pb.CandidateDelta(index=index, text=text, tokens=[pb.Token(token_id=i) for i in range(tokens)])
        expected.tokens.extend(delta.tokens)
        whole.add(delta)
    last = pb.CandidateDelta(finish_reason=pb.FINISH_REASON_STOP)
    if stop is not None:
        last.matched_stop.text = expected.matched_stop.text = stop
    whole.add(last)
    expected.finish_reason = pb.FINISH_REASON_STOP
    assert list(pb.GenerateResponse.FromString(whole.serialised()).candidates) == [expected]


async def test_those_that_take_turns_leave_room_for_others_in_each_round() -> None:
    """Twenty calls with work for ever: in each round of the loop few of them have a turn, all about as often."""
    turns, had = LoopShares(), [0] * 20

    async def heavy(index: int) -> None:
        while True:
            await turns.next()
            had[index] += 1
            _busy(0.004)

    tasks = [asyncio.create_task(heavy(index)) for index in range(20)]
    seen = [0]
    for _ in range(200):
        await asyncio.sleep(0)
        seen.append(sum(had))
    for task in tasks:
        task.cancel()
    assert max(after - before for before, after in pairwise(seen)) <= 1
    assert sum(had) >= 40 and max(had) - min(had) <= 2


def _busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
