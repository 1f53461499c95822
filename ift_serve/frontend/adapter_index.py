"""The engine's adapter versions as the server process knows them, one step late, and the watches of their changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ift_serve.engine.protocol.adapter import SERVED, AdapterInfo, AdapterState

_LONGEST_BACKLOG = 1024
_LISTED = SERVED | {AdapterState.DRAINING}


class AdapterIndex:
    """Versions that are served or drain, by ``(name, version)``, newest last, kept up by the engine's events."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], AdapterInfo] = {}
        self._watchers: set[asyncio.Queue[AdapterInfo | None]] = set()

    def change(self, info: AdapterInfo) -> None:
        """Take in one event and pass it on."""
        key = (info.name, info.version)
        if info.state in _LISTED:
            self._known[key] = info
        else:
            self._known.pop(key, None)
        for queue in list(self._watchers):
            if queue.qsize() >= _LONGEST_BACKLOG:
                # A watcher that does not read is cut off rather than fill the memory.
                self._watchers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(info)

    def clear(self) -> None:
        """The engine is gone, and its adapters with it."""
        for info in list(self._known.values()):
            self.change(AdapterInfo(name=info.name, version=info.version, state=AdapterState.UNLOADED, path=info.path))

    def end_watches(self) -> None:
        """Tell every watcher that nothing more will come: a watch must not hold up the server's end."""
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers.clear()

    def all(self) -> list[AdapterInfo]:
        """All versions by name, newest first."""
        newest_first = list(reversed(self._known.values()))
        return sorted(newest_first, key=lambda info: info.name)

    def get(self, name: str, version: str) -> AdapterInfo | None:
        """One version."""
        return self._known.get((name, version))

    def find(self, reference: str) -> AdapterInfo | None:
        """The newest version of ``name`` that is served, or ``name@version``."""
        name, _, version = reference.partition("@")
        found = [i for i in self.all() if i.name == name and version in ("", i.version)]
        return next((i for i in found if i.state in SERVED), next(iter(found), None))

    async def watch(self) -> AsyncIterator[AdapterInfo]:
        """All versions, then every change. Ends when the consumer falls far behind or the server stops."""
        queue: asyncio.Queue[AdapterInfo | None] = asyncio.Queue()
        for info in self.all():
            queue.put_nowait(info)
        self._watchers.add(queue)
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._watchers.discard(queue)
