"""The watched folder: what appears is loaded, what goes is unloaded, what may yet succeed is tried again."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterState
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.adapter_index import AdapterIndex
from ift_serve.frontend.engine_client import BaseEngineClient, EngineError
from ift_serve.frontend.wanted_adapters import WantedAdapters
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.config import ServerConfig
from ift_serve.server.folder import WatchedFolder
from tests.support.adapters import write_random
from tests.support.serving import serving


async def test_a_watched_folder_is_kept_loaded(
    server_config: Callable[..., ServerConfig], metadata: BaseMetadata, root: Path, tmp_path: Path
) -> None:
    async with serving(server_config()) as (server, client):
        folder = WatchedFolder(server.engine, root, interval=1.0)
        write_random(root / "one", metadata, seed=1)
        (root / ".hidden").mkdir()
        await folder.step()
        await folder.settle()
        assert await client.adapters() == [], "it may still be being copied"
        await folder.step()
        await folder.settle()
        first = (await client.adapter("one")).version
        write_random(root / "one", metadata, seed=2)
        for _ in range(2):
            await folder.step()
            await folder.settle()
        assert (await client.adapter("one")).version != first
        (root / "one").rename(root / ".gone")
        await folder.step()
        (root / ".gone").rename(root / "one")
        for _ in range(3):
            await folder.step()
            await folder.settle()
            assert len(await client.adapters()) == 1, "it was being replaced"
        shutil.rmtree(root / "one")
        for _ in range(2):
            await folder.step()
            await folder.settle()
        assert await client.adapters() == []


class Balky:
    """An engine that is not always there, and takes its time to unload."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.errors: list[EngineError] = []
        self.drained = asyncio.Event()
        self.adapters = AdapterIndex()
        self.wanted = WantedAdapters(self.adapters)

    async def load_adapter(self, name: str, path: str, shown: str, root: str) -> AdapterInfo:
        self.said.append(("load", name))
        if self.errors:
            raise self.errors.pop()
        return AdapterInfo(name=name, version="v", state=AdapterState.READY, path=shown)

    async def unload_adapter(self, name: str) -> None:
        self.said.append(("unload", name))
        await self.drained.wait()


async def test_a_watched_folder_tries_again_what_may_yet_succeed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("refused", "unlucky"):
        (root / name).mkdir()
        (root / name / "adapter_config.json").write_text("{}")
    engine = Balky()
    folder = WatchedFolder(cast(BaseEngineClient, engine), root, interval=1.0)
    kinds = {"refused": FailureKind.UNFIT, "unlucky": FailureKind.UNAVAILABLE}
    engine.errors = [EngineError(kinds[name], "no") for name in ("unlucky", "refused")]
    for _ in range(6):
        await folder.step()
        await folder.settle()
    assert engine.said == [("load", "refused"), ("load", "unlucky"), ("load", "unlucky")]
    # A file that goes while one looks says nothing of the directory.
    whole = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == "adapter_config.json":
            raise FileNotFoundError(path)
        return whole(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stat)
        for _ in range(4):
            await folder.step()
    assert engine.said[3:] == []
    shutil.rmtree(root / "unlucky")
    (root / "another").mkdir()
    (root / "another" / "adapter_config.json").write_text("{}")
    for _ in range(4):
        await folder.step()
    await asyncio.sleep(0)
    assert engine.said[3:] == [("load", "another"), ("unload", "unlucky")], "a long drain holds nothing up"
    engine.drained.set()
    await folder.settle()
