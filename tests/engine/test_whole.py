"""A caller who waits for the whole answer hears once, and hears the same."""

from __future__ import annotations

import asyncio

import pytest

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engines.thread import LocalEngine
from tests.support.engine_driver import generate
from tests.support.oracle_worker import build

PROMPT = [5, 17, 3, 44, 9]


async def _outputs(engine: LocalEngine, request: GenerateRequest) -> list[CandidateOutput]:
    return [output async for output in engine.generate(request)]


@pytest.mark.parametrize("candidates", [1, 3])
async def test_one_output_a_candidate_with_all_tokens(candidates: int) -> None:
    async with LocalEngine(EngineConfig(model="fast"), build) as engine:
        options = {"max_new_tokens": 30, "temperature": 1.0, "seed": 4, "candidates": candidates}
        streamed, whole = await asyncio.gather(
            _outputs(engine, generate("a", PROMPT, **options)),
            _outputs(engine, generate("b", PROMPT, whole=True, **options)),
        )
    expected: dict[int, list[int]] = {}
    for output in streamed:
        expected.setdefault(output.candidate, []).extend(output.token_ids)
    assert {o.candidate: o.token_ids for o in whole} == expected and len(whole) == candidates
    assert all(o.finish_reason is FinishReason.LENGTH and len(o.statistics) == len(o.token_ids) for o in whole)
    assert whole[-1].usage is not None and whole[-1].usage.first_token_seconds > 0


async def test_a_deadline_still_sends_what_there_is() -> None:
    async with LocalEngine(EngineConfig(model="slow"), build) as engine:
        loop_time = asyncio.get_running_loop().time()
        (output,) = await _outputs(
            engine, generate("a", PROMPT, whole=True, max_new_tokens=2_000, deadline=loop_time + 1.0)
        )
    assert output.finish_reason in (FinishReason.DEADLINE, FinishReason.LENGTH) and output.token_ids
