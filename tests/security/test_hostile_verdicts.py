"""Verdicts on hostile texts over the wire: each has an answer or a refusal in bounded time, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import evaluation_pb2 as pb
from ift_serve.v1 import evaluation_pb2_grpc
from tests.support.hostile_checks import PIECES, constraints, repeated
from tests.support.serving import serving

for package in ("langdetect", "punkt", "emoji", "syllapy"):
    pytest.importorskip(package, reason=f"some instructions need {package}, of the extra eval")

pytestmark = pytest.mark.asyncio(loop_scope="module")

Make = Callable[..., ServerConfig]
_LARGE, _SMALL = 900_000, 4_000
_BOUND = 30.0
"""Seconds for a call that the server bounds to two; beyond, it is not bounded."""
_PATIENCE = 20.0
"""Seconds for a health check: it hangs, or it does not."""
_PAUSE = 0.01
"""Seconds between two health checks: without any they cost as much as what they watch."""
_REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
_CONSTRAINTS = constraints()


@dataclass(slots=True)
class _Watched:
    """A server under attack, and how many health checks it has answered meanwhile."""

    evaluation: Any
    answered: int = 0

    async def keep_asking(self, health: Any) -> None:
        """Health checks, one after another."""
        while True:
            assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)).status == 1
            self.answered += 1
            await asyncio.sleep(_PAUSE)


@asynccontextmanager
async def _watched(server: Server) -> AsyncIterator[_Watched]:
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as other,
    ):
        watched = _Watched(evaluation_pb2_grpc.EvaluationServiceStub(channel))
        asking = asyncio.create_task(watched.keep_asking(health_pb2_grpc.HealthStub(other)))
        yield watched
        assert not asking.done(), asking.exception()
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert watched.answered


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(server_config: Make) -> AsyncIterator[Server]:
    """Bounds the checks of a response to two seconds."""
    async with serving(server_config(check_timeout=2.0)) as (running, _):
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def watched(server: Server) -> AsyncIterator[_Watched]:
    async with _watched(server) as found:
        yield found


def _groups(found: Iterable[Any], size: int) -> list[list[Any]]:
    every = list(found)
    return [every[first : first + size] for first in range(0, len(every), size)]


def _request(response: str, checks: Any) -> pb.CheckRequest:
    request = pb.CheckRequest(response=response, prompt="a prompt")
    for check in checks:
        struct = struct_pb2.Struct()
        struct.update(check)
        request.constraints.add(check=struct)
    return request


async def _judged(evaluation: Any, response: str, checks: Any) -> bool:
    """Whether there is a verdict for each check; else the call was refused as it may be."""
    call = evaluation.Check(_request(response, checks), timeout=_BOUND)
    code = await call.code()
    assert code in (grpc.StatusCode.OK, *_REFUSALS), await call.details()
    if code is not grpc.StatusCode.OK:
        return False
    found = await call
    assert len(found.verdicts) == len(checks)
    assert all(v.span.begin <= v.span.end <= len(response) for v in found.verdicts)
    return True


@pytest.mark.timeout(400)
async def test_every_kind_of_constraint_judges_every_hostile_text(server_config: Make) -> None:
    """Texts of some kilobytes are judged, whatever they repeat."""
    kinds = [found[0] for found in _CONSTRAINTS.values()]
    assert len(kinds) > 90
    async with serving(server_config(check_timeout=_BOUND)) as (server, _), _watched(server) as watched:
        for piece in PIECES.values():
            if piece.isascii() or piece.isprintable():  # others are no text that a message can hold
                for some in _groups(kinds, 64):
                    assert await _judged(watched.evaluation, repeated(piece, _SMALL), some), piece


@pytest.mark.timeout(400)
async def test_a_mebibyte_against_every_kind_of_constraint_ends(watched: _Watched) -> None:
    texts = cycle(piece for piece in PIECES.values() if len(piece.encode(errors="ignore")) == len(piece))
    for some in _groups(_groups((found[-1] for found in _CONSTRAINTS.values()), 8), 4):
        calls = [_judged(watched.evaluation, repeated(next(texts), _LARGE), group) for group in some]
        await asyncio.gather(*calls)
    assert await _judged(watched.evaluation, "YES", [{"type": "upper"}]), "the next caller is judged"


HOSTILE = {
    "keywords that are expressions": {"type": "instruction", "instruction_id": "keywords:existence",
                                      "kwargs": {"keywords": ["(a+)+$", "a" * 5000, "(?=a)", "[", "\\"]}},
    "thousands of keywords": {"type": "instruction", "instruction_id": "keywords:forbidden_words",
                              "kwargs": {"forbidden_words": [f"w{n}" for n in range(1500)]}},
    "a long phrase": {"type": "end", "phrase": "a" * 16_000},
    "a number that is none": {"type": "max_words", "limit": float("nan")},
    "an infinite number": {"type": "max_words", "limit": float("inf")},
    "a large number": {"type": "max_words", "limit": 1e300},
    "a negative number": {"type": "min_words", "least": -1e18},
    "an empty word": {"type": "avoid", "word": ""},
    "nested lists": {"type": "json_items", "items": [[[[[[[["a"]]]]]]]]},
    "nothing": {},
    "another's fields": {"type": "upper", "pattern": "(a|a)*b", "limit": 3},
    "an unknown id": {"type": "instruction", "instruction_id": "a:" * 5000},
    "arguments of another": {"type": "instruction", "instruction_id": "punctuation:no_comma",
                             "kwargs": {"keywords": ["a"] * 1000}},
    "an expression of counts": {"type": "pattern", "pattern": "((a{1,100}){1,100}){1,100}"},
    "an expression of choices": {"type": "pattern", "pattern": "(" + "|".join("a" * n for n in range(1, 40)) + ")*b"},
}  # fmt: skip
"""Constraints that mean to cost, to break what reads them, or to be read as something else."""


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_constraint_is_judged_or_refused(watched: _Watched, kind: str) -> None:
    for count in (1, 40):
        await _judged(watched.evaluation, repeated("a", 200_000), [HOSTILE[kind]] * count)
    assert await _judged(watched.evaluation, "YES", [{"type": "upper"}])


@pytest.mark.timeout(400)
async def test_callers_who_leave_and_callers_at_once_hold_up_nobody(watched: _Watched) -> None:
    slow = [{"type": "pattern", "pattern": "(a|aa)+$"}] * 64
    request = _request(repeated("a", _LARGE // 2), slow)
    left = [watched.evaluation.Check(request, timeout=0.2) for _ in range(16)]
    for code in [await call.code() for call in left]:
        assert code in (*_REFUSALS, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK), code
    assert await _judged(watched.evaluation, "YES", [{"type": "upper"}])
