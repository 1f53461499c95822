"""Verdicts over the wire."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import struct_pb2

from ift_serve.checks import parse_check
from ift_serve.checks.worker import judged
from ift_serve.client import AsyncClient, ServerError
from ift_serve.frontend.adherence import score_adherence
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.server.app import Server
from ift_serve.server.check_processes import CheckProcesses
from ift_serve.server.config import ServerConfig
from ift_serve.server.errors import StatusError
from ift_serve.text.ends import answer_ends
from ift_serve.text.prompt import PromptRenderer
from ift_serve.v1 import evaluation_pb2 as pb
from ift_serve.v1 import evaluation_pb2_grpc
from tests.support.adapters import write_random
from tests.support.serving import serving


@pytest_asyncio.fixture
async def evaluation(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield evaluation_pb2_grpc.EvaluationServiceStub(channel)


def _request(response: str, *checks: dict[str, Any]) -> pb.CheckRequest:
    request = pb.CheckRequest(response=response)
    for check in checks:
        struct = struct_pb2.Struct()
        struct.update(check)
        request.constraints.add(check=struct)
    return request


async def test_each_constraint_has_a_verdict_with_its_place(evaluation: Any) -> None:
    found = await evaluation.Check(
        _request(
            "Grüße 🦊, over",
            {"type": "max_words", "limit": 5},
            {"type": "instruction", "instruction_id": "punctuation:no_comma"},
            {"type": "include", "word": "over"},
        )
    )
    assert [v.passed for v in found.verdicts] == [True, False, True] and not found.passed
    assert (found.verdicts[1].span.begin, found.verdicts[1].span.end) == (7, 8)
    assert (found.verdicts[2].span.begin, found.verdicts[2].span.end) == (9, 13)


async def test_an_empty_response_keeps_nothing(evaluation: Any) -> None:
    found = await evaluation.Check(_request(" \n", {"type": "avoid", "word": "fox"}))
    assert not found.passed and found.verdicts[0].reason == "empty answer"


@pytest.mark.parametrize(
    ("checks", "field"),
    [
        ([], "constraints"),
        ([{"type": "end"}], "constraints[0].check.phrase"),
        ([{"type": "upper"}, {"type": "no such"}], "constraints[1].check.type"),
        ([{"type": "max_words", "limit": 2.5}], "constraints[0].check.limit"),
        ([{"type": "instruction", "instruction_id": "no:such"}], "constraints[0].check"),
        ([{"type": "end", "phrase": "x" * 20_000}], "constraints[0].check"),
        ([{"type": "upper"}] * 65, "constraints"),
    ],
)
async def test_a_wrong_constraint_is_named(evaluation: Any, checks: list[dict[str, Any]], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await evaluation.Check(_request("yes", *checks))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (error.value.details() or "").startswith(field + ": ")


async def test_the_client_gets_what_the_checks_say(server: Server) -> None:
    asked: list[dict[str, Any]] = [{"type": "max_words", "limit": 2}, {"type": "end", "phrase": "out"}]
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        found = await client.check("over and out", asked)
        with pytest.raises(ServerError, match="INVALID_ARGUMENT"):
            await client.check("over", [{"type": "nothing"}])
        with pytest.raises(ValueError, match=r"constraints\[0\]"):
            await client.check("over", [{"type": object()}])
    expected = [parse_check(check).verdict("over and out") for check in asked]
    assert [(v.passed, v.reason, v.span) for v in found] == [(v.passed, v.reason, v.span) for v in expected]


_HOSTILE_PATTERNS = ("(a+)+$", "(a|aa)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)*x", "a{1,900}" * 8, "(?:x?){500}x{500}")


@pytest.mark.parametrize("pattern", _HOSTILE_PATTERNS)
async def test_hostile_patterns_and_texts_hold_up_nobody(evaluation: Any, server: Server, pattern: str) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        await client.check("warm", [{"type": "upper"}])
        hostile = asyncio.ensure_future(
            evaluation.Check(_request("a" * 300_000 + "!", *[{"type": "pattern", "pattern": pattern}] * 3), timeout=30)
        )
        beside = 0
        while not hostile.done():
            assert (await client.model()).name
            beside += 1
        ended: Any = (await asyncio.gather(hostile, return_exceptions=True))[0]
        if isinstance(ended, grpc.aio.AioRpcError):
            refusals = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
            assert ended.code() in refusals, ended
        else:
            assert len(ended.verdicts) == 3
        assert beside and await client.check("YES", [{"type": "upper"}])


async def test_hostile_texts_are_judged_and_spans_are_within_them(evaluation: Any) -> None:
    texts = [
        "\u0000" * 99,
        "\u202e" * 999,
        "e\u0301" * 5000,
        "[" * 100_000,
        '{"a":' * 50_000,
        "\n" * 100_000 + "x",
        "🦊" * 9999,
    ]
    checks: list[dict[str, Any]] = [
        {"type": "json"}, {"type": "upper"}, {"type": "max_words", "limit": 5}, {"type": "end", "phrase": "x"},
        {"type": "instruction", "instruction_id": "punctuation:no_comma"},
        {"type": "instruction", "instruction_id": "length_constraints:number_sentences",
         "kwargs": {"num_sentences": 3, "relation": "at least"}},
    ]  # fmt: skip
    for text in texts:
        found = await evaluation.Check(_request(text, *checks), timeout=60)
        assert len(found.verdicts) == len(checks)
        assert all(v.span.begin <= v.span.end <= len(text) for v in found.verdicts)


async def test_what_is_not_decided_in_time_is_ended_and_the_next_is_judged() -> None:
    processes = CheckProcesses(0.25, count=1)
    try:
        message = {"constraints": [{"type": "upper"}], "response": "YES", "prompt": ""}
        assert (await processes.ask(message))["verdicts"] == [[True, "", None]]
        (running,) = processes._running
        os.kill(running._process.pid, signal.SIGSTOP)
        with pytest.raises(StatusError, match="not decided within") as error:
            await processes.ask(message)
        assert error.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        processes._time_limit = 30.0
        assert (await processes.ask(message))["verdicts"] == [[True, "", None]]
        (running,) = processes._running
        os.kill(running._process.pid, signal.SIGSTOP)
        asking = asyncio.ensure_future(processes.ask(message))
        await asyncio.sleep(0)
        os.kill(running._process.pid, signal.SIGKILL)
        with pytest.raises(StatusError, match="more memory"):
            await asking
        assert (await processes.ask(message))["verdicts"] == [[True, "", None]]
        (running,) = processes._running
        os.kill(running._process.pid, signal.SIGKILL)
        await running.ended()
        assert (await processes.ask(message))["verdicts"] == [[True, "", None]], "one that ended while nobody asked"
    finally:
        await processes.close()
    assert not processes._running


async def test_a_caller_that_leaves_takes_its_process_along() -> None:
    processes = CheckProcesses(60, count=1)
    message = {"constraints": [{"type": "upper"}], "response": "YES", "prompt": ""}
    await processes.ask(message)
    (running,) = processes._running
    os.kill(running._process.pid, signal.SIGSTOP)
    asking = asyncio.ensure_future(processes.ask(message))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await running.ended()
    assert (await processes.ask(message | {"response": "no"}))["verdicts"][0][0] is False
    await processes.close()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from ift_serve.checks.errors import MissingExtraError
    from ift_serve.checks.phrases import Upper

    def verdict(*_: object) -> None:
        raise MissingExtraError("this", "langdetect", "eval")

    monkeypatch.setattr(Upper, "verdict", verdict)
    answer = judged({"constraints": [{"type": "upper"}], "response": "x", "prompt": ""})
    assert "pip install 'ift-serve[eval]'" in answer["missing"]


async def test_an_adapter_without_an_adherence_head_says_so(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "plain", metadata, seed=1)
    async with serving(server_config(adapters={"plain": root / "plain"})) as (_, client):
        found = await client.check("YES", [{"type": "upper"}], prompt="Shout.", adapter="plain")
        assert found.passed and found.adherence is None and "has no adherence head" in found.adherence_unavailable
        assert (await client.check("YES", [{"type": "upper"}])).adherence_unavailable == ""
        for prompt, adapter, code in (("", "plain", "INVALID_ARGUMENT"), ("Shout.", "nobody", "NOT_FOUND")):
            with pytest.raises(ServerError, match=code):
                await client.check("YES", [{"type": "upper"}], prompt=prompt, adapter=adapter)


async def test_an_adherence_head_judges_the_response_as_it_would_have_been_generated(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path, model_directory: Path
) -> None:
    """The components' own forward pass over the states of the adapter's answers is compared in the engine's tests."""
    write_random(root / "head", metadata, ComponentsConfig(adherence_head=8), seed=1)
    renderer = PromptRenderer.from_pretrained(str(model_directory))
    asked, text = renderer.instruction("Shout."), "the fox"
    answer = [*renderer.answer_ids(asked, "", text), answer_ends(renderer)[0]]
    async with serving(server_config(adapters={"head": root / "head"})) as (server, client):
        found = await client.check(text, [{"type": "upper"}], prompt="Shout.", adapter="head")
        whole = (asked.token_ids, asked.segment_ids, [answer, answer[:-1]])
        ended, open_ended = await score_adherence(server.engine, "own", *whole, "head")
        assert found.adherence == pytest.approx(ended, abs=1e-6) and abs(ended - open_ended) > 1e-5
        assert not found.passed and found.adherence_unavailable == ""
        assert (await client.check("", [{"type": "upper"}], prompt="Shout.", adapter="head")).adherence is not None
        with pytest.raises(ServerError, match="INVALID_ARGUMENT"):
            await client.check("word " * 3000, [{"type": "upper"}], prompt="Shout.", adapter="head")
