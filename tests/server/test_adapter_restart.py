"""What was loaded is what is loaded again after the engine died: the same version, or none."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ift_serve.client import AsyncClient, ServerError
from ift_serve.engine.adapters.kept_copies import keep
from ift_serve.frontend.adapter_copies import AdapterCopies
from ift_serve.frontend.engine_client import EngineClient
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.folder import WatchedFolder
from tests.frontend.test_engine_client import PROMPT, process_client, until
from tests.frontend.test_engine_client import answer as oracle_answer
from tests.frontend.test_engine_client import kill as kill_oracle
from tests.server.test_adapters import answer
from tests.support.adapters import write_random
from tests.support.engine_driver import generate
from tests.support.serving import serving


async def kill(server: Server) -> None:
    """Kill the engine and wait until the front has noticed."""
    engine = server.engine
    assert isinstance(engine, EngineClient) and engine.engine_pid is not None
    before = engine.restarts
    os.kill(engine.engine_pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while engine.restarts == before:  # noqa: ASYNC110 - nobody there could set an event
            await asyncio.sleep(0.02)


async def refusal(client: AsyncClient, adapter: str) -> ServerError:
    with pytest.raises(ServerError) as refused:
        await answer(client, adapter)
    return refused.value


async def test_a_restart_loads_the_version_that_was_loaded_whatever_the_directory_holds_now(
    server_config: Callable[..., ServerConfig],
    metadata: BaseMetadata,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    start = write_random(tmp_path / "start", metadata, seed=5)
    for name in ("one", "two"):
        write_random(root / name, metadata, seed=1)
    async with serving(server_config(adapter_roots=[root], adapters={"start": start}), process=True) as (
        server,
        client,
    ):
        await client.load_adapter("one", "one")
        await client.load_adapter("two", "two")
        before = {name: await answer(client, name) for name in ("one", "two", "start")}
        write_random(root / "one", metadata, seed=2)
        write_random(start, metadata, seed=6)
        for file in (root / "two").iterdir():
            file.unlink()
        await kill(server)
        assert {name: await answer(client, name) for name in before} == before
        changed = await client.load_adapter("one", "one")
        assert (await answer(client, "one"))[1] == f"one@{changed.version}" != before["one"][1]
        await client.unload_adapter("two")
        await until(lambda: len(list((tmp_path / "cache").glob("*/server-*/[0-9a-f]*"))) == 2)
    assert not list((tmp_path / "cache").glob("*/server-*")), "what was kept must go with the server"


async def test_a_version_that_was_not_kept_and_is_gone_is_refused_and_not_replaced(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    for name in ("changed", "removed", "same"):
        write_random(root / name, metadata, seed=1)
    config = server_config(adapter_roots=[root], engine={"kept_adapter_bytes": 0})
    async with serving(config, process=True) as (server, client):
        folder = WatchedFolder(server.engine, root, interval=1.0)
        for _ in range(2):
            await folder.step()
            await folder.settle()
        same = await answer(client, "same")
        write_random(root / "changed", metadata, seed=2)
        (root / "removed").rename(root / ".removed")
        await kill(server)
        assert await answer(client, "same") == same
        for name in ("changed", "removed"):
            refused = await refusal(client, name)
            assert refused.code == "NOT_FOUND" and "load it again" in str(refused)
        assert server.engine.wanted.losses == 2 and set(server.engine.wanted.lost) == {"changed", "removed"}
        for _ in range(3):
            await folder.step()
            await folder.settle()
        assert (await answer(client, "changed"))[1].startswith("changed@"), "the folder loads what it holds now"
        assert set(server.engine.wanted.lost) == {"removed"}
        assert (await client.load_adapter("removed", "same")).state == "ready"
        assert await answer(client, "removed")


async def test_past_the_caps_loads_are_refused_and_replacements_are_not(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    for seed in range(3):
        write_random(root / f"a{seed}", metadata, seed=seed)
    refusing = {"max_adapters": 2, "evict_adapters": False}
    async with serving(server_config(adapter_roots=[root], engine=refusing)) as (_, client):
        size = (await client.load_adapter("a0", "a0")).bytes
        await client.load_adapter("a1", "a1")
        with pytest.raises(ServerError, match=r"max_adapters.*unload one") as refused:
            await client.load_adapter("a2", "a2")
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert (await client.load_adapter("a1", "a2")).state == "ready"
        await client.unload_adapter("a0")
        assert (await client.load_adapter("a2", "a2")).state == "ready"
    engine = {"max_adapter_bytes": 2 * size, "evict_adapters": False}
    async with serving(server_config(adapter_roots=[root], engine=engine)) as (server, client):
        folder = WatchedFolder(server.engine, root, interval=1.0)
        for _ in range(5):
            await folder.step()
            await folder.settle()
        loaded = [adapter.name for adapter in await client.adapters()]
        assert len(loaded) == 2, "whichever two were read first"
        with pytest.raises(ServerError, match="max_adapter_bytes") as refused:
            await client.load_adapter("b", "a2")
        assert refused.value.code == "RESOURCE_EXHAUSTED" and server.engine.stats.adapter_bytes == 2 * size
        assert (await client.load_adapter(loaded[1], "a2")).state == "ready"
        (root / loaded[0]).rename(root / ".gone")
        for _ in range(5):
            await folder.step()
            await folder.settle()
        assert [adapter.name for adapter in await client.adapters()] == sorted({"a0", "a1", "a2"} - {loaded[0]}), (
            "there is room again"
        )


async def test_what_calls_wait_for_is_loaded_first(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    wanted = tmp_path / "wanted"
    wanted.touch()
    async with process_client() as client:
        await client.load_adapter("wanted", f"wanted:{wanted}")
        for number in range(12):
            await client.load_adapter(f"a{number}", f"a{number}:{gate}")
        gate.unlink()
        kill_oracle(client)
        await until(lambda: client.state == "restarting")
        async with asyncio.timeout(60):
            assert await oracle_answer(client, generate("call", PROMPT, adapter="wanted"))
        assert client.adapters.find("a0") is None, "the others are still being read"
        gate.touch()
        await until(lambda: len(client.adapters.all()) == 13)


def test_no_more_is_kept_than_the_limit(metadata: BaseMetadata, root: Path, tmp_path: Path) -> None:
    path = write_random(root / "one", metadata, seed=1)
    size = sum(file.stat().st_size for file in path.iterdir() if file.name != "README.md")
    place = tmp_path / "kept"
    place.mkdir()
    for version in ("a", "b"):
        keep(str(path), "", version, str(place), 2 * size)
    with pytest.raises(OSError, match="no room"):
        keep(str(path), "", "c", str(place), 2 * size)
    assert sorted(entry.name for entry in place.iterdir()) == ["a", "b"], "whole or not at all"


def test_a_spool_that_a_killed_server_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFT_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    alive = AdapterCopies(1 << 20)
    place, room = alive.place()
    assert room and Path(place).is_dir()
    left = Path(tempfile.mkdtemp(prefix="server-", dir=Path(place).parent))
    (left / "lock").touch()
    (left / "0123").mkdir()
    other = AdapterCopies(1 << 20)
    other.place()
    assert not left.exists() and Path(place).is_dir()
    other.close()
    alive.close()


async def test_a_trainers_other_files_do_not_count_as_the_adapters_bytes(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path
) -> None:
    write_random(root / "a", metadata, seed=1)
    for name in ("optimizer.safetensors", "optimizer.pt"):
        (root / "a" / name).write_bytes(bytes(1 << 20))
    async with serving(server_config(adapter_roots=[root], engine={"max_adapter_bytes": 1 << 18})) as (_, client):
        assert (await client.load_adapter("a", "a")).state == "ready"
