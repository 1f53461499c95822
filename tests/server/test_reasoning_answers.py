"""Strategies over the wire, in a real engine: what was asked for is done, told, and the same whole and streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ift_serve.client import (
    AdaptiveTemperature,
    AnswerSpan,
    AsyncClient,
    BestOf,
    Branch,
    Generation,
    Reasoning,
    Trace,
    Vote,
)
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import Limits, ServerConfig
from tests.support.models import tiny_llama

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    directory = tiny_llama(tmp_path_factory.mktemp("thinking"), markers=("<think>", "</think>"))
    engine = EngineConfig(model=str(directory), dtype="float32", total_blocks=64, threads=1)
    config = ServerConfig(engine=engine, port=0, metrics_port=None, limits=Limits(thought_tokens=40))
    server = Server(config, local_engine(engine))
    await server.start()
    async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as asking:
        yield asking
    await server.stop()


async def both_ways(client: AsyncClient, reasoning: Reasoning, **options: object) -> Generation:
    """The answer, which is the same whole and streamed."""
    whole = await client.generate("hi", reasoning=reasoning, seed=3, statistics=True, **options)  # type: ignore[arg-type]
    stream = client.stream("hi", reasoning=reasoning, seed=3, statistics=True, **options)  # type: ignore[arg-type]
    streamed = await stream.result()
    assert streamed.candidates == whole.candidates and streamed.conclusion == whole.conclusion
    assert streamed.applied_reasoning == whole.applied_reasoning and streamed.sampling == whole.sampling
    return whole


def thought_tokens(answer: Generation, budget: int) -> int:
    """How many there are, which is the budget, or up to three more where that ends within a character."""
    thought = [token for token in answer.candidates[0].tokens if token.channel == "reasoning"]
    assert 0 <= len(thought) - budget <= 3
    beyond = thought[budget - 1 : -1]
    assert all(token.text in ("", "\ufffd") for token in beyond), "a whole character ends a thought at its budget"
    return len(thought)


async def test_case_1_a_trace_thinks_exactly_its_budget_and_has_an_answer_of_its_own(client: AsyncClient) -> None:
    answer = await both_ways(client, Trace(budget=12), max_new_tokens=7, temperature=1.0, ignore_eos=True)
    thought = thought_tokens(answer, 12)
    assert answer.usage.reasoning_tokens == thought and answer.usage.answer_tokens == 7
    tokens = answer.candidates[0].tokens
    assert [t.channel for t in tokens] == ["marker", *["reasoning"] * thought, "marker", *["answer"] * 7]
    assert [t.token_id for t in tokens if t.forced] == [t.token_id for t in tokens if t.channel == "marker"]
    assert "".join(t.text for t in tokens if t.channel == "answer") == answer.text
    assert answer.usage.drawn_tokens >= 7 + thought and answer.usage.forced_tokens == 2


async def test_case_2_a_budget_of_nothing_closes_at_once(client: AsyncClient) -> None:
    answer = await both_ways(client, Trace(budget=0), max_new_tokens=5, temperature=1.0, ignore_eos=True)
    assert answer.reasoning == "" and answer.usage.reasoning_tokens == 0 and answer.usage.answer_tokens == 5


async def test_case_9_the_operators_cap_is_the_budget(client: AsyncClient) -> None:
    answer = await both_ways(client, Trace(budget=100), max_new_tokens=3, temperature=1.0, ignore_eos=True)
    assert answer.applied_reasoning is not None and isinstance(answer.applied_reasoning.settings, Trace)
    assert answer.applied_reasoning.settings.budget == 40
    assert answer.usage.reasoning_tokens == thought_tokens(answer, 40)


async def test_a_vote_tells_what_was_compared_and_what_all_of_it_took(client: AsyncClient) -> None:
    vote = Vote(samples=6, stop="all", span=AnswerSpan("last_line"))
    answer = await both_ways(client, vote, max_new_tokens=6, temperature=1.0, ignore_eos=True)
    assert answer.conclusion is not None and answer.conclusion.mode == "vote"
    assert len(answer.branches) == 6 and sum(b.chosen for b in answer.branches) == 1
    assert sum(b.tokens for b in answer.branches) == 36 <= answer.usage.drawn_tokens
    assert answer.usage.generated_tokens == 6 and answer.usage.sequences >= 6


async def test_branches_are_greedy_and_ranked(client: AsyncClient) -> None:
    answer = await both_ways(client, Branch(width=4, span=AnswerSpan("last_line")), max_new_tokens=6, ignore_eos=True)
    assert answer.sampling["temperature"] == 0 and answer.conclusion is not None
    assert answer.conclusion.mode == "branch" and len(answer.branches) == 4
    (chosen,) = [b for b in answer.branches if b.chosen]
    assert chosen.confidence == max(b.confidence for b in answer.branches) == answer.candidates[0].confidence


async def test_best_of_answers_with_the_likeliest(client: AsyncClient) -> None:
    answer = await both_ways(client, BestOf(samples=3), max_new_tokens=6, temperature=1.0, ignore_eos=True)
    log_probs = [t.log_prob for t in answer.candidates[0].tokens]
    confidence = answer.candidates[0].confidence
    assert confidence == pytest.approx(sum(log_probs) / len(log_probs), abs=1e-5)
    assert confidence == max(b.confidence for b in answer.branches)


async def test_a_total_ends_a_strategy_with_what_there_is(client: AsyncClient) -> None:
    answer = await client.generate(
        "hi", reasoning=Trace(budget=20), max_total_tokens=9, max_new_tokens=9, temperature=1.0, ignore_eos=True
    )
    assert answer.usage.drawn_tokens + answer.usage.forced_tokens <= 9 and answer.text == ""
    assert answer.finish_reason == "length" and answer.reasoning


@pytest.mark.parametrize("stop", [[], ["e"], ["\n\n", "Question:"]])
async def test_case_23_stop_strings_are_not_looked_for_in_thoughts(client: AsyncClient, stop: list[str]) -> None:
    free = await client.generate("hi", reasoning=Trace(budget=30), max_new_tokens=20, seed=5, temperature=1.0)
    stopped = await client.generate(
        "hi", reasoning=Trace(budget=30), max_new_tokens=20, seed=5, temperature=1.0, stop=stop
    )
    assert stopped.reasoning == free.reasoning and free.text.startswith(stopped.text)
    assert not any(s in stopped.text for s in stop)


async def test_a_temperature_by_entropy_is_reported_token_by_token(client: AsyncClient) -> None:
    """EDT: T = T_0 * base ** (theta / H), within its bounds."""
    rule = AdaptiveTemperature(rule="entropy", base=0.5, theta=1.0, min=0.25, max=2.0)
    answer = await client.generate(
        "hi", adaptive=rule, temperature=1.0, max_new_tokens=12, ignore_eos=True, statistics=True, seed=2
    )
    for token in answer.candidates[0].tokens:
        assert token.statistics is not None
        expected = 0.5 ** (1.0 / token.statistics.entropy)
        assert token.statistics.temperature == pytest.approx(min(max(expected, 0.25), 2.0), rel=1e-4)
    assert answer.sampling["adaptive"] == AdaptiveTemperature(0.25, 2.0, 1.0, "entropy", 0.5, 1.0)
