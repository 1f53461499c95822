"""Strategies with adapters, over the wire: as the merged model answers, and the same in any company."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ift_serve.client import (
    AdaptiveTemperature,
    AnswerSpan,
    AsyncClient,
    BestOf,
    Branch,
    Generation,
    Prompt,
    Trace,
    Vote,
)
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.export import export_merged
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.support.adapters import EVERYTHING, write_random
from tests.support.models import tiny_llama

pytestmark = pytest.mark.asyncio(loop_scope="module")

LAST_LINE = AnswerSpan("last_line")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 0.8, "n": 2},
    "trace": {"reasoning": Trace(budget=9, minimum=3, message=" So:"), "temperature": 0.7},
    "branch": {"reasoning": Branch(width=5, span=LAST_LINE)},
    "vote": {"reasoning": Vote(samples=6, span=LAST_LINE, trace=Trace(budget=4)), "temperature": 1.0},
    "best_of": {"reasoning": BestOf(samples=4), "temperature": 1.0},
}
ADAPTERS = ("", "lora", "all", "head")


@dataclass
class _Servers:
    tuned: AsyncClient
    merged: AsyncClient


async def _server(directory: Path, roots: list[Path]) -> Server:
    engine = EngineConfig(model=str(directory), dtype="float32", total_blocks=160, threads=1)
    server = Server(ServerConfig(engine=engine, port=0, metrics_port=None, adapter_roots=roots), local_engine(engine))
    await server.start()
    return server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Servers]:
    root = tmp_path_factory.mktemp("adapters")
    base = tiny_llama(tmp_path_factory.mktemp("base"), markers=("<think>", "</think>"))
    metadata = BaseMetadata.of_directory(base)
    write_random(root / "lora", metadata, seed=1)
    write_random(root / "all", metadata, EVERYTHING, seed=2)
    write_random(root / "head", metadata, ComponentsConfig(temperature_head=8), seed=3, targets=())
    export_merged(root / "lora", base, root / "merged")
    tuned, merged = await _server(base, [root]), await _server(root / "merged", [])
    async with (
        AsyncClient(f"127.0.0.1:{tuned.port}", timeout=120) as first,
        AsyncClient(f"127.0.0.1:{merged.port}", timeout=120) as second,
    ):
        for name in ADAPTERS[1:]:
            await first.load_adapter(name, name)
        yield _Servers(first, second)
    await tuned.stop()
    await merged.stop()


async def _asked(
    client: AsyncClient, kind: str, adapter: str = "", prompt: str = "the fox", **options: Any
) -> Generation:
    settings = {"seed": 11, "max_new_tokens": 8, "ignore_eos": True, "statistics": True, **KINDS[kind], **options}
    return await client.generate(prompt, adapter=adapter, **settings)


def _ids(found: Generation) -> list[list[int]]:
    return [[token.token_id for token in candidate.tokens] for candidate in found.candidates]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_adapter_answers_as_the_model_that_it_is_merged_into(kind: str, servers: _Servers) -> None:
    for prompt in ("the fox", "Say hello", "a dog ran to the river"):
        by_adapter = await _asked(servers.tuned, kind, "lora", prompt)
        by_model = await _asked(servers.merged, kind, prompt=prompt)
        assert _ids(by_adapter) == _ids(by_model)
        assert [(b.answer, b.tokens, b.chosen, b.finish_reason) for b in by_adapter.branches] == [
            (b.answer, b.tokens, b.chosen, b.finish_reason) for b in by_model.branches
        ]
        assert [b.confidence for b in by_adapter.branches] == pytest.approx(
            [b.confidence for b in by_model.branches], abs=1e-4
        )
        assert by_adapter.usage.drawn_tokens == by_model.usage.drawn_tokens
    base = [_ids(await _asked(servers.tuned, kind, prompt=prompt)) for prompt in ("the fox", "Say hello")]
    tuned = [_ids(await _asked(servers.tuned, kind, "lora", prompt)) for prompt in ("the fox", "Say hello")]
    assert base != tuned, "the adapter must change something for this to show anything"


async def test_strategies_of_all_adapters_in_one_batch_answer_as_alone(servers: _Servers) -> None:
    asked = [(kind, adapter) for kind in KINDS for adapter in ADAPTERS]
    alone = [await _asked(servers.tuned, kind, adapter) for kind, adapter in asked]
    together = await asyncio.gather(*(_asked(servers.tuned, kind, adapter) for kind, adapter in asked))
    for (_, adapter), one, other in zip(asked, alone, together, strict=True):
        assert _ids(one) == _ids(other)
        if adapter != "all":  # whose components' products round by how many rows there are
            assert one.candidates == other.candidates and one.conclusion == other.conclusion
        pairs = zip(one.candidates, other.candidates, strict=True)
        for token, same in (tokens for a, b in pairs for tokens in zip(a.tokens, b.tokens, strict=True)):
            assert token.log_prob == pytest.approx(same.log_prob, abs=1e-4)
        for count in ("drawn_tokens", "forced_tokens", "sequences"):
            assert getattr(one.usage, count) == getattr(other.usage, count)


@pytest.mark.parametrize("kind", ["trace", "vote", "best_of"])
async def test_temperatures_of_a_head_are_those_of_the_sequence_whatever_drives_it(
    kind: str, servers: _Servers
) -> None:
    adaptive = AdaptiveTemperature()
    found = await _asked(servers.tuned, kind, "head", adaptive=adaptive)
    drawn = [token.statistics for token in found.candidates[0].tokens if token.statistics is not None]
    temperatures = {round(statistics.temperature, 6) for statistics in drawn}
    assert len(temperatures) > 3, "a head chooses token by token"
    crowd = [_asked(servers.tuned, other, name) for other in ("branch", "vote") for name in ADAPTERS]
    again, *_ = await asyncio.gather(_asked(servers.tuned, kind, "head", adaptive=adaptive), *crowd)
    assert again.candidates == found.candidates


async def test_a_branch_of_an_adapter_is_greedy_text_of_that_adapter(servers: _Servers) -> None:
    prompt = (await servers.tuned.generate("the fox", max_new_tokens=1, prompt_token_ids=True)).prompt_token_ids
    for adapter in ("", "lora", "head"):  # components read segments, which a prompt of ids does not have
        found = await _asked(servers.tuned, "branch", adapter)
        first, *rest = (token.token_id for token in found.candidates[0].tokens)
        begun = Prompt(token_ids=(*prompt, first))
        plain = await servers.tuned.generate(
            begun, adapter=adapter, temperature=0.0, max_new_tokens=7, ignore_eos=True, tokens=True
        )
        assert [token.token_id for token in plain.candidates[0].tokens] == rest
