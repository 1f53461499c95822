"""`reasoning.none`: no thought is opened where the chat template makes the prompt; elsewhere nothing is forbidden."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ift_serve.client import AsyncClient, Message, NoReasoning, Prompt, Trace
from ift_serve.client.types import PromptLike
from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.thoughts import Thoughts
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from tests.support.models import tiny_llama
from tests.support.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKERS = ("<think>", "</think>")
CHAT = Prompt.from_messages([Message("user", "hi")])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("thinking"), markers=MARKERS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scripted(directory: Path) -> AsyncIterator[tuple[AsyncClient, ScriptedEngine]]:
    """A client of a server whose engine tells what it was asked."""
    engine = EngineConfig(model=str(directory), dtype="float32", total_blocks=64, threads=1)
    asked = ScriptedEngine(engine)
    server = Server(ServerConfig(engine=engine, port=0, metrics_port=None), asked)
    await server.start()
    async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:
        yield client, asked
    await server.stop()


@pytest.mark.parametrize(
    ("prompt", "options", "is_forbidden"),
    [
        ("hi", {"reasoning": NoReasoning()}, True),
        (CHAT, {"reasoning": NoReasoning()}, True),
        (Prompt.from_text("hi"), {"reasoning": NoReasoning()}, False),
        (Prompt(token_ids=(5, 6)), {"reasoning": NoReasoning()}, False),
        ("hi", {}, False),
        ("hi", {"max_total_tokens": 40}, False),
        ("hi", {"reasoning": Trace(budget=3)}, False),
    ],
)
async def test_the_opening_token_is_forbidden_only_where_no_thought_is_asked_for(
    scripted: tuple[AsyncClient, ScriptedEngine],
    directory: Path,
    prompt: PromptLike,
    options: dict[str, Any],
    is_forbidden: bool,
) -> None:
    client, engine = scripted
    opening = load_tokenizer(str(directory)).convert_tokens_to_ids(MARKERS[0])
    answer = await client.generate(prompt, max_new_tokens=5, **options)
    biases = engine.requests[-1].sampling.logit_bias
    assert biases == ({opening: -math.inf} if is_forbidden else {})
    # What is told can be asked for again.
    assert "logit_bias" not in answer.sampling


async def test_a_bias_of_the_callers_own_holds(scripted: tuple[AsyncClient, ScriptedEngine], directory: Path) -> None:
    client, engine = scripted
    opening = load_tokenizer(str(directory)).convert_tokens_to_ids(MARKERS[0])
    await client.generate("hi", max_new_tokens=5, reasoning=NoReasoning(), logit_bias={opening: 2.0, 7: -1.0})
    assert engine.requests[-1].sampling.logit_bias == {opening: 2.0, 7: -1.0}


async def test_typed_markers_forbid_nothing(tmp_path: Path) -> None:
    """Their pieces may be part of any answer."""
    thoughts = Thoughts(PromptRenderer(load_tokenizer(str(tiny_llama(tmp_path)))))
    assert thoughts.opening_ids == ()


async def test_the_embedded_model_thinks_unasked_now_and_then_and_never_where_none_is_asked_for() -> None:
    engine = EngineConfig(model=str(model_path()), dtype="float32", total_blocks=256, threads=1)
    server = Server(ServerConfig(engine=engine, port=0, metrics_port=None), local_engine(engine))
    await server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:
            options: dict[str, Any] = {"temperature": 1.5, "n": 16, "max_new_tokens": 24}
            unasked = thoughts = 0
            for seed in range(4):
                question = f"What is {31 + seed} plus {8 * seed} minus 5?"
                left = await client.generate(question, seed=seed, **options)
                none = await client.generate(question, seed=seed, reasoning=NoReasoning(), **options)
                unasked += sum(bool(candidate.reasoning) for candidate in left.candidates)
                thoughts += none.usage.reasoning_tokens
                assert not any(candidate.reasoning for candidate in none.candidates)
            assert unasked and thoughts == 0
    finally:
        await server.stop()
