"""What becomes of requests where a server fails, hangs, or answers what was not asked; by a scripted server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest_asyncio

from ift_serve.client import AsyncClient, Prompt
from ift_serve.evaluation.run import Plan, evaluate
from ift_serve.evaluation.scores import coverage, scores
from ift_serve.evaluation.serving.outcomes import Answer, Failure, LogLikelihood
from ift_serve.evaluation.serving.request_runner import RequestRunner
from ift_serve.evaluation.serving.requests import Continuations, Generation, Request
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.serving.served_model import ServedModel
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc, model_pb2, model_pb2_grpc


class Scripted:
    """A server whose answer follows from the first word of the prompt."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.in_flight = self.most = 0

    async def GetModel(self, request: Any, context: Any) -> model_pb2.GetModelResponse:
        limits = model_pb2.Limits(context_length=4096, running_sequences=4)
        return model_pb2.GetModelResponse(name="scripted", fingerprint="f", limits=limits, features=["score"])

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        said = [part.text for message in request.prompt.conversation.messages for part in message.parts]
        text = request.prompt.instruction.instruction or "|".join(said)
        self.calls[text] += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(0.002)
            return await self._answer(text, context)
        finally:
            self.in_flight -= 1

    async def _answer(self, text: str, context: Any) -> pb.GenerateResponse:
        match text.split()[0]:
            case "busy" if self.calls[text] < 3:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            case "gone":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            case "wrong":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            case "hangs":
                await asyncio.sleep(30)
            case "nothing":
                return pb.GenerateResponse()
        return pb.GenerateResponse(candidates=[pb.Candidate(text="yes", finish_reason=pb.FINISH_REASON_EOS)])

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        """As a server without log-probabilities of prompts does."""
        scores = [pb.Score(token_count=1) for _ in request.continuations.continuations]
        return pb.ScoreResponse(scores=scores)


@pytest_asyncio.fixture
async def scripted() -> AsyncIterator[tuple[Scripted, AsyncClient]]:
    server, script = grpc.aio.server(), Scripted()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(_with_all(script, pb, "InferenceService"), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(script, server)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}", retries=0) as client:
        yield script, client
    await server.stop(0)


def _with_all(script: Scripted, module: Any, service: str) -> Any:
    """The stub registers every method of a service, whether it is scripted or not."""
    for method in module.DESCRIPTOR.services_by_name[service].methods:
        if not hasattr(script, method.name):
            setattr(script, method.name, None)
    return script


async def _run(client: AsyncClient, requests: list[Request], **options: Any) -> tuple[RequestRunner, list[Any]]:
    runner = RequestRunner(client, await ServedModel.of(client), ResultStore(), first_pause=0.001, **options)
    found: dict[int, Any] = {}
    await runner.run(requests, lambda index, outcomes: found.update({index: outcomes}))
    return runner, [found[index] for index in range(len(requests))]


def _asked(*texts: str) -> list[Request]:
    return [Generation(Prompt(instruction=text)) for text in texts]


async def test_what_may_pass_is_tried_again(scripted: tuple[Scripted, AsyncClient]) -> None:
    script, client = scripted
    runner, ((answer,),) = await _run(client, _asked("busy"))
    assert isinstance(answer, Answer) and answer.text == "yes"
    assert script.calls["busy"] == 3 and runner.totals.retries == 2


async def test_failures_are_rows_of_their_own_and_the_others_go_on(scripted: tuple[Scripted, AsyncClient]) -> None:
    script, client = scripted
    texts = ["fine 1", "gone", "wrong", "nothing", "fine 2"]
    runner, found = await _run(client, _asked(*texts), attempts=3)
    kinds = [outcome.code if isinstance(outcome, Failure) else outcome.text for (outcome,) in found]
    assert kinds == ["yes", "UNAVAILABLE", "INVALID_ARGUMENT", "MALFORMED", "yes"]
    assert (script.calls["gone"], script.calls["wrong"], script.calls["nothing"]) == (3, 1, 1)
    assert runner.totals.failed == 3


async def test_a_time_out_is_of_one_request(scripted: tuple[Scripted, AsyncClient]) -> None:
    _, client = scripted
    texts = ["hangs", *(f"fine {i}" for i in range(40))]
    _, found = await _run(client, _asked(*texts), timeout=0.2, attempts=1, concurrency=2)
    assert found[0][0].code == "DEADLINE_EXCEEDED"
    assert all(isinstance(outcome, Answer) for (outcome,) in found[1:])


async def test_twice_the_servers_batch_is_in_flight(scripted: tuple[Scripted, AsyncClient]) -> None:
    script, client = scripted
    runner, _ = await _run(client, _asked(*(f"fine {i}" for i in range(60))))
    assert runner.totals.most_in_flight == 8 and 4 < script.most <= 8


async def test_scores_that_are_all_zero_are_failures(scripted: tuple[Scripted, AsyncClient]) -> None:
    _, client = scripted
    _, (outcomes,) = await _run(client, [Continuations(Prompt.from_text("a"), (" b", " c"))])
    assert [outcome.code for outcome in outcomes] == ["MALFORMED"] * 2
    assert not any(isinstance(outcome, LogLikelihood) for outcome in outcomes)


async def test_failures_are_asked_for_again_by_the_next_run_and_answers_are_not(
    scripted: tuple[Scripted, AsyncClient],
) -> None:
    script, client = scripted
    store = ResultStore()
    for _ in range(2):
        runner = RequestRunner(client, await ServedModel.of(client), store, first_pause=0.001)
        await runner.run(_asked("fine", "wrong"), lambda index, outcomes: None)
    assert script.calls == {"fine": 1, "wrong": 2}


async def test_a_run_reports_coverage(scripted: tuple[Scripted, AsyncClient]) -> None:
    _, client = scripted

    class Mixed(Adherence):
        def items(self) -> Any:
            item = super().items()[0]
            texts = ["fine", "wrong", "fine too"]
            kind = type(item)
            return [kind(t, Prompt(instruction=t), t, item.families, item.source) for t in texts]

    result = await evaluate(client, Plan([Mixed()]), ResultStore(), attempts=1)
    (covered,) = coverage(result.rows)
    assert (covered.asked, covered.answered) == (3, 2)
    assert {s.prompts for s in scores(result.rows)} == {2}


async def test_later_turns_are_asked_with_the_answers_before(scripted: tuple[Scripted, AsyncClient]) -> None:
    script, client = scripted
    prompt = Prompt.from_messages([("user", "one")])
    _, ((answer,),) = await _run(client, [Generation(prompt, turns=("two", "three"))])
    assert isinstance(answer, Answer) and answer.earlier == ("yes", "yes")
    assert list(script.calls) == ["one", "one|yes|two", "one|yes|two|yes|three"]
