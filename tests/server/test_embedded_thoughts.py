"""Thoughts of the embedded model over the wire, by its own markers: channels, budget, forced closings, early exit."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ift_serve.checks import judge_all
from ift_serve.checks.equations import equations
from ift_serve.client import AsyncClient, ConfidenceExit, EntropyExit, Generation, Trace
from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_training.data.procedural import Example, draw, family

pytestmark = pytest.mark.asyncio(loop_scope="module")

_RNG = random.Random("thoughts")
PROBLEMS = [draw(family(name), "test", _RNG) for name in ("arithmetic", "word_problem") for _ in range(6)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[AsyncClient]:
    engine = EngineConfig(model=str(model_path()), dtype="float32", total_blocks=64, threads=1)
    server = Server(ServerConfig(engine=engine, port=0, metrics_port=None), local_engine(engine))
    await server.start()
    async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as asking:
        yield asking
    await server.stop()


async def ask(client: AsyncClient, problem: Example, trace: Trace | None) -> Generation:
    """Greedily; a whole answer and a streamed one are the same."""
    whole = await client.generate(problem.prompt, reasoning=trace, temperature=0, max_new_tokens=48, statistics=True)
    stream = client.stream(problem.prompt, reasoning=trace, temperature=0, max_new_tokens=48, statistics=True)
    streamed = await stream.result()
    assert streamed.candidates == whole.candidates
    assert streamed.usage.reasoning_tokens == whole.usage.reasoning_tokens
    return whole


async def test_the_model_says_its_markers_and_does_not_think_unasked(client: AsyncClient) -> None:
    assert (await client.model()).thought_markers == ("<think>", "</think>")
    for problem in PROBLEMS:
        answer = await ask(client, problem, None)
        assert answer.text and not answer.reasoning and "think>" not in answer.text
        assert answer.usage.reasoning_tokens == 0


async def test_thoughts_are_steps_and_answers_their_result(client: AsyncClient) -> None:
    right = 0
    for problem in PROBLEMS:
        answer = await ask(client, problem, Trace(budget=96))
        steps = list(equations(answer.reasoning))
        assert len(steps) == 4 and answer.reasoning.count("\n\n") == 1
        assert answer.text.isdigit() and answer.finish_reason == "eos"
        assert answer.usage.reasoning_tokens > answer.usage.answer_tokens > 0
        right += bool(judge_all(problem.checks, answer.text)) and all(step.is_true for step in steps)
    assert right >= 10


@pytest.mark.parametrize("budget", [1, 4, 11])
async def test_a_budget_cuts_the_thought_to_the_token_and_there_is_an_answer(client: AsyncClient, budget: int) -> None:
    for problem in PROBLEMS[::4]:
        whole = await ask(client, problem, Trace(budget=96))
        answer = await ask(client, problem, Trace(budget=budget))
        assert answer.usage.reasoning_tokens == budget and whole.reasoning.startswith(answer.reasoning)
        assert [t.text for t in answer.candidates[0].tokens if t.forced] == ["<think>", "</think>"]
        assert any(c.isdigit() for c in answer.text)


async def test_a_sure_trial_answer_ends_the_thought_before_its_check(client: AsyncClient) -> None:
    shorter = 0
    for problem in PROBLEMS:
        whole = await ask(client, problem, Trace(budget=96))
        early = await ask(client, problem, Trace(budget=96, early_exit=ConfidenceExit()))
        assert whole.reasoning.startswith(early.reasoning) and early.usage.sequences == 2
        if early.reasoning != whole.reasoning:
            shorter += 1
            assert "\n\n" in early.reasoning and early.usage.reasoning_tokens < whole.usage.reasoning_tokens
            assert early.text == whole.text
    assert shorter >= 10


async def test_one_entropy_has_not_settled(client: AsyncClient) -> None:
    """EAT needs many paragraphs, of which these thoughts have two."""
    for problem in PROBLEMS[::3]:
        whole = await ask(client, problem, Trace(budget=96))
        asked = await ask(client, problem, Trace(budget=96, early_exit=EntropyExit()))
        assert (asked.reasoning, asked.text) == (whole.reasoning, whole.text) and asked.usage.sequences == 2
