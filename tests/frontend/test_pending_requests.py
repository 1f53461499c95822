"""PendingRequests in flight: what is joined, in which order it is told, and what ends a call."""

from __future__ import annotations

import pytest

from ift_serve.engine.protocol.generate import CandidateOutput, TokenStatistics
from ift_serve.engine.protocol.results import FailureKind, FinishReason, RequestFailed, RequestUsage
from ift_serve.frontend.errors import EngineError
from ift_serve.frontend.pending_requests import Call, PendingRequests

STATISTICS = TokenStatistics(-1.0, 0.5, 0.2, 1.0, -2.0, 1.0)


def output(candidate: int, *tokens: int, last: bool = False, usage: bool = False) -> CandidateOutput:
    return CandidateOutput(
        request_id="a",
        candidate=candidate,
        token_ids=list(tokens),
        statistics=[STATISTICS for _ in tokens],
        top_log_probs=[[(token, -1.0)] for token in tokens],
        finish_reason=FinishReason.EOS if last else None,
        request_finished=last,
        usage=RequestUsage(prompt_tokens=3) if usage else None,
    )


async def test_outputs_of_a_candidate_are_joined_and_the_last_word_comes_last() -> None:
    call = Call("a", 2)
    for said in (
        output(0, 1, usage=True),
        output(1, 5),
        output(0, 2, 3),
        output(1, 6),
        output(0, 4, last=True),
    ):
        call.deliver(said)
    second, first = await call.outputs()
    assert (second.candidate, second.token_ids) == (1, [5, 6])
    assert (first.candidate, first.token_ids, first.request_finished) == (0, [1, 2, 3, 4], True)
    assert [top[0][0] for top in first.top_log_probs] == [1, 2, 3, 4]
    assert len(first.statistics) == 4
    assert first.usage is not None and first.finish_reason is FinishReason.EOS
    assert await call.outputs() == []


async def test_what_came_before_a_failure_is_told_before_it() -> None:
    call = Call("a", 1)
    call.deliver(output(0, 1))
    call.deliver(RequestFailed(request_id="a", kind=FailureKind.INTERNAL, message="lost", retry_after=2.0))
    assert [said.token_ids for said in await call.outputs()] == [[1]]
    with pytest.raises(EngineError, match="lost") as failed:
        await call.outputs()
    assert failed.value.retry_after == 2.0


async def test_the_end_of_a_stopped_candidate_ends_the_call() -> None:
    call = Call("a", 2)
    call.stop(0)
    call.deliver(output(0, 1))
    call.deliver(output(1, 7))
    call.deliver(output(0, 2, last=True))
    assert [said.candidate for said in await call.outputs()] == [1]
    assert await call.outputs() == []


async def test_a_finished_call_does_not_fail_afterwards() -> None:
    calls = PendingRequests()
    call = calls.open("a", 1)
    call.deliver(output(0, 1, last=True))
    assert not calls.any_unfinished(besides="/")
    calls.fail_all(FailureKind.UNAVAILABLE, "gone")
    assert len(await call.outputs()) == 1
    assert await call.outputs() == []


async def test_every_call_fails_with_an_error_of_its_own() -> None:
    calls = PendingRequests()
    errors = []
    opened = [calls.open(name, 1) for name in "ab"]
    calls.fail_all(FailureKind.UNAVAILABLE, "gone", 1.5)
    for call in opened:
        with pytest.raises(EngineError) as failed:
            await call.outputs()
        errors.append(failed.value)
    assert errors[0] is not errors[1]
