"""Over a socket: with guesses and without, callers are told the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import generate_latest

from ift_serve.client import AsyncClient, Generation, Prompt
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.support.serving import serving

PROMPT = Prompt.from_tokens([1, 40, 41, 42, 43, 44, 40, 41, 42, 43])
FEW: dict[str, Any] = {"ignore_eos": True, "logit_bias": dict.fromkeys(range(60, 64), 60.0)}
"""Answers of four tokens, which come again in the same order often enough."""
ASKED: list[dict[str, Any]] = [
    {"temperature": 0.0, "max_new_tokens": 90},
    {"temperature": 0.0, "max_new_tokens": 90, "statistics": True, "top_alternatives": 3},
    {"temperature": 0.4, "max_new_tokens": 60, "n": 3, "seed": 5},
    {"temperature": 0.2, "max_new_tokens": 60, "repetition_penalty": 1.1, "seed": 2},
]


@pytest_asyncio.fixture
async def servers(
    server_config: Callable[..., ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, tuple[Server, AsyncClient]]]:
    # What a step takes here decides nothing: guesses are made as on a machine on which rows cost little.
    monkeypatch.setattr(StepCosts, "note", lambda self, rows, seconds, sequences: None)
    plain, guessing = server_config(), server_config(engine={"speculation": "lookup"})
    async with serving(plain) as first, serving(guessing) as second:
        yield {"off": first, "lookup": second}


def said(answer: Generation) -> Any:
    """All but times, names and what was guessed."""
    usage = asdict(answer.usage)
    for name in ("queue_seconds", "first_token_seconds", "total_seconds", "drafted_tokens", "accepted_tokens"):
        del usage[name]
    return answer.candidates, usage


@pytest.mark.asyncio
async def test_answers_are_the_same_and_usage_and_metrics_tell_what_was_guessed(
    servers: dict[str, tuple[Server, AsyncClient]],
) -> None:
    drafted = accepted = 0
    for asked in ASKED:
        found = {name: await client.generate(PROMPT, **FEW, **asked) for name, (_, client) in servers.items()}
        assert said(found["lookup"]) == said(found["off"])
        assert found["off"].usage.drafted_tokens == found["off"].usage.accepted_tokens == 0
        drafted += found["lookup"].usage.drafted_tokens
        accepted += found["lookup"].usage.accepted_tokens
    assert drafted >= accepted > 0, "answers of four tokens repeat themselves"
    metrics = generate_latest(servers["lookup"][0].metrics.registry).decode()
    assert f"ift_engine_drafted_tokens_total {float(drafted)}" in metrics
    assert f"ift_engine_accepted_tokens_total {float(accepted)}" in metrics


@pytest.mark.asyncio
async def test_a_stop_string_ends_an_answer_within_tokens_that_came_together(
    servers: dict[str, tuple[Server, AsyncClient]],
) -> None:
    """Whole and streamed, at every place that the text has."""
    plain, guessing = servers["off"][1], servers["lookup"][1]
    whole = await plain.generate(PROMPT, temperature=0.7, seed=4, max_new_tokens=60, **FEW)
    text = whole.text
    assert len(text) > 20
    for place in range(1, len(text) - 2, 3):
        asked: dict[str, Any] = {
            "temperature": 0.7, "seed": 4, "max_new_tokens": 60, "stop": [text[place : place + 2]],
            "statistics": True, **FEW,
        }  # fmt: skip
        first, second = await plain.generate(PROMPT, **asked), await guessing.generate(PROMPT, **asked)
        assert second.candidates == first.candidates
        assert second.usage.generated_tokens == first.usage.generated_tokens
        streamed = "".join([event.text async for event in guessing.stream(PROMPT, **asked)])
        assert streamed == first.text
