"""Verdicts over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import struct_pb2

from ift_serve.checks import parse_check
from ift_serve.client import AsyncClient, ServerError
from ift_serve.server.app import Server
from ift_serve.v1 import evaluation_pb2 as pb
from ift_serve.v1 import evaluation_pb2_grpc


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
