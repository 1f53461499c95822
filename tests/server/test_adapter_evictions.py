"""More adapters than host memory holds, over the wire: callers notice nothing but the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ift_serve.client import AsyncClient, ServerError
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from tests.server.test_adapter_restart import kill
from tests.server.test_adapters import answer
from tests.support.adapters import write_random
from tests.support.serving import serving

NAMES = ("a0", "a1", "a2", "a3")
CONTEXT = ComponentsConfig(instruction_encoder=16, attention_bias=True, segment_embedding=True)


@pytest.fixture
def adapters(metadata: BaseMetadata, root: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_random(root / name, metadata, CONTEXT if seed % 2 else ComponentsConfig(), seed=seed)
    return root


async def states(client: AsyncClient) -> dict[str, str]:
    return {adapter.name: adapter.state for adapter in await client.adapters()}


async def scraped(server: Server, name: str) -> float:
    found = server.metrics.registry.get_sample_value(name)
    assert found is not None, name
    return found


async def test_answers_are_those_of_a_server_that_holds_all(
    server_config: Callable[..., ServerConfig], adapters: Path
) -> None:
    """With many requests in flight, so that adapters come and go between the steps of others."""
    asked = [(NAMES[(7 * number) % 4], number % 5) for number in range(40)]
    told: list[list[tuple[str, str]]] = []
    for held in (1024, 2):
        config = server_config(adapter_roots=[adapters], engine={"max_adapters": held, "max_sequences": 8})
        async with serving(config) as (server, client):
            sizes = [(await client.load_adapter(name, name)).bytes for name in NAMES]
            told.append(await asyncio.gather(*(answer(client, name, number) for name, number in asked)))
            stats, found = server.engine.stats, await states(client)
            assert found.keys() == set(NAMES)
            if held == 2:
                assert sorted(found.values()) == ["evicted", "evicted", "ready", "ready"]
                assert stats.adapter_bytes <= sum(sorted(sizes)[2:])
                assert stats.adapter_evictions >= 4 and stats.adapter_returns >= 2
                assert await scraped(server, "ift_adapters") == await scraped(server, "ift_adapters_evicted") == 2
                assert await scraped(server, "ift_adapter_evictions_total") == stats.adapter_evictions
                assert await scraped(server, "ift_adapter_returns_total") == stats.adapter_returns
            else:
                assert set(found.values()) == {"ready"} and stats.adapter_evictions == 0
    assert told[0] == told[1]


async def test_an_evicted_version_is_the_same_whatever_its_directory_holds_by_then(
    server_config: Callable[..., ServerConfig], adapters: Path, metadata: BaseMetadata
) -> None:
    config = server_config(adapter_roots=[adapters], engine={"max_adapters": 1})
    async with serving(config, process=True) as (_, client):
        await client.load_adapter("a0", "a0")
        before = await answer(client, "a0")
        write_random(adapters / "a0", metadata, seed=9)
        await client.load_adapter("a1", "a1")
        assert await states(client) == {"a0": "evicted", "a1": "ready"}
        assert await answer(client, "a0") == before
        assert await states(client) == {"a0": "ready", "a1": "evicted"}


async def test_a_version_of_which_no_copy_was_kept_and_whose_files_changed_is_refused(
    server_config: Callable[..., ServerConfig], adapters: Path, metadata: BaseMetadata
) -> None:
    config = server_config(adapter_roots=[adapters], engine={"max_adapters": 1, "kept_adapter_bytes": 0})
    async with serving(config, process=True) as (_, client):
        await client.load_adapter("a0", "a0")
        await client.load_adapter("a1", "a1")
        write_random(adapters / "a0", metadata, seed=9)
        with pytest.raises(ServerError, match="cannot be read again") as refused:
            await answer(client, "a0")
        assert refused.value.code == "NOT_FOUND"
        assert (await client.load_adapter("a0", "a0")).state == "ready"
        assert await answer(client, "a0")


async def test_a_restart_brings_back_more_than_memory_holds(
    server_config: Callable[..., ServerConfig], adapters: Path
) -> None:
    config = server_config(adapter_roots=[adapters], engine={"max_adapters": 2})
    async with serving(config, process=True) as (server, client):
        for name in NAMES:
            await client.load_adapter(name, name)
        before = {name: await answer(client, name) for name in NAMES}
        await kill(server)
        assert {name: await answer(client, name) for name in NAMES} == before
        assert sorted((await states(client)).values()) == ["evicted", "evicted", "ready", "ready"]
        assert server.engine.wanted.lost == {}


async def test_watchers_are_told_of_evictions(server_config: Callable[..., ServerConfig], adapters: Path) -> None:
    async with serving(server_config(adapter_roots=[adapters], engine={"max_adapters": 1})) as (_, client):
        await client.load_adapter("a0", "a0")
        told: list[str] = []
        begun = asyncio.Event()

        async def follow() -> None:
            async for adapter in client.watch_adapters():
                if adapter.name == "a0":
                    told.append(adapter.state)
                    begun.set()
                    if told[-1] == "ready" and len(told) > 1:
                        return

        following = asyncio.create_task(follow())
        await begun.wait()
        await client.load_adapter("a1", "a1")
        await answer(client, "a0")
        async with asyncio.timeout(30):
            await following
        assert told == ["ready", "evicted", "returning", "ready"]
