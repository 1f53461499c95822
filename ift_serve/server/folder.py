"""Keeps the adapters of a folder loaded: each directory in it is one, named as the directory."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ift_serve.engine.client import BaseEngineClient
from ift_serve.engine.errors import EngineError
from ift_serve.server.adapters import check_name
from ift_serve.server.errors import StatusError

_log = logging.getLogger(__name__)
_SETTLED = 2
"""Looks in a row that must see the same files before a directory is loaded: it may still be being copied."""

Stamp = tuple[tuple[str, int, int], ...]


def look(folder: Path) -> dict[str, Stamp]:
    """Name, size and time of the files of each directory that is not hidden."""
    found: dict[str, Stamp] = {}
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        try:
            files = [(f.name, f.stat()) for f in sorted(entry.iterdir()) if f.is_file()]
        except OSError:
            continue  # it went while we looked; the next look sees what became of it
        if files:
            found[entry.name] = tuple((name, s.st_size, s.st_mtime_ns) for name, s in files)
    return found


class WatchedFolder:
    """Loads what appears or changes in a folder, unloads what goes. One look every ``interval`` seconds."""

    def __init__(self, engine: BaseEngineClient, folder: Path, interval: float) -> None:
        self._engine = engine
        self._folder = folder.resolve()
        self._interval = interval
        self._seen: dict[str, tuple[Stamp, int]] = {}
        self._loaded: dict[str, Stamp] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._interval)

    async def step(self) -> None:
        """One look, and what follows from it."""
        try:
            found = await asyncio.to_thread(look, self._folder)
        except OSError as error:
            _log.warning("adapter folder %s cannot be read: %s", self._folder.name, error)
            return
        for name, stamp in found.items():
            before, times = self._seen.get(name, ((), 0))
            times = times + 1 if before == stamp else 1
            self._seen[name] = (stamp, times)
            if times == _SETTLED and self._loaded.get(name) != stamp:
                self._loaded[name] = stamp
                await self._load(name)
        for name in [name for name in self._seen if name not in found]:
            del self._seen[name]
            if self._loaded.pop(name, None) is not None:
                await self._unload(name)

    async def _load(self, name: str) -> None:
        try:
            check_name(name)
            info = await self._engine.load_adapter(name, str(self._folder / name), name)
            _log.info("adapter loaded from the folder", extra={"adapter": name, "version": info.version})
        except (EngineError, StatusError) as error:
            _log.warning("adapter %s of the folder was not loaded: %s", name, error)

    async def _unload(self, name: str) -> None:
        try:
            await self._engine.unload_adapter(name)
        except EngineError as error:
            _log.warning("adapter %s was not unloaded: %s", name, error)
