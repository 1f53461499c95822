"""Keeps the adapters of a folder loaded: each directory in it is one, named as the directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.adapter_service import check_name
from ift_serve.server.audit_log import AuditLog
from ift_serve.server.errors import StatusError, as_status

_log = logging.getLogger(__name__)
_SETTLED = 2
"""Looks in a row that must see the same before anything is done: a directory may still be being copied, or replaced.
A copy that may pause belongs under a hidden name and is renamed when it is whole."""
_REFUSED = (FailureKind.UNFIT, FailureKind.INVALID)
"""What another attempt at the same files would not change."""

Stamp = tuple[tuple[str, int, int], ...]


def look(folder: Path) -> dict[str, Stamp | None]:
    """Name, size and time of the files of each directory that is not hidden; None of one that cannot be read now."""
    found: dict[str, Stamp | None] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        try:
            files = [(f.name, f.stat()) for f in sorted(entry.iterdir()) if f.is_file()]
        except OSError:
            found[entry.name] = None  # a file of it went while we looked
            continue
        if files:
            found[entry.name] = tuple((name, s.st_size, s.st_mtime_ns) for name, s in files)
    return found


def look_at_keys(place: Path | None) -> Stamp:
    """Name, size and time of a file of keys, or of the files of a directory of them; nothing of what is not there."""
    if place is None:
        return ()
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        return tuple((f.name, s.st_size, s.st_mtime_ns) for f, s in [(f, f.stat()) for f in files])
    except OSError:
        return ()


class _Outcome(Enum):
    """What came of handing a directory's files to the engine."""

    LOADED = auto()
    REFUSED = auto()
    NO_ROOM = auto()


@dataclass(slots=True)
class _Directory:
    """``stamp``: of its files at the last look, None once it is gone; ``looks``: how many in a row have seen that.

    ``outcome`` is of the files with the stamp ``tried``. ``loaded``: a load of some of its files succeeded, so that the
    adapter goes with the directory; whether the engine has it now is asked of the engine.
    """

    stamp: Stamp | None
    looks: int = 0
    outcome: _Outcome | None = None
    tried: Stamp | None = None
    loaded: bool = False


class WatchedFolder:
    """Loads what appears or changes in a folder, unloads what goes. One look every ``interval`` seconds.

    ``audit``: is told of both, as of what an administrator does: who can write to the folder is one. ``keys``: of the
    signatures that are trusted; what was refused is tried again when they change.
    """

    def __init__(
        self,
        engine: BaseEngineClient,
        folder: Path,
        interval: float,
        audit: AuditLog | None = None,
        keys: Path | None = None,
    ) -> None:
        self._engine = engine
        self._audit = audit or AuditLog(None)
        self._folder = folder.resolve()
        self._interval = interval
        self._keys = keys
        self._seen_keys = look_at_keys(keys)
        self._directories: dict[str, _Directory] = {}
        self._resident_when_full = 0
        """Adapters that the engine had when it last had no room for one."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(self._interval)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def step(self) -> None:
        """One look, and what follows from it, which goes on beside the next ones."""
        try:
            found = await asyncio.to_thread(look, self._folder)
            keys = await asyncio.to_thread(look_at_keys, self._keys)
        except OSError as error:
            _log.warning("adapter folder %s cannot be read: %s", self._folder.name, error)
            return
        self._forget_what_was_lost()
        if keys != self._seen_keys and not self._tasks:  # a load under way may have read either keys
            self._seen_keys = keys
            self._forget_refusals()
        for name in sorted(found.keys() | self._directories.keys()):
            stamp = found.get(name)
            if name in found and stamp is None:
                continue
            directory = self._directories.setdefault(name, _Directory(stamp))
            directory.looks = directory.looks + 1 if directory.stamp == stamp else 1
            directory.stamp = stamp
            if directory.looks < _SETTLED or name in self._tasks:
                continue
            if stamp is None:
                del self._directories[name]
                if directory.loaded:
                    self._begin(name, self._unload(name))
            elif stamp != directory.tried:
                self._begin(name, self._load(name, directory, stamp))

    def _forget_what_was_lost(self) -> None:
        """What a restarted engine could not load again is loaded anew; what found no room, once there is more."""
        lost = self._engine.wanted.lost
        has_room = len(self._engine.adapters.all()) < self._resident_when_full
        for name, directory in self._directories.items():
            directory.loaded = directory.loaded and name not in lost
            was_lost = directory.outcome is _Outcome.LOADED and not directory.loaded
            if was_lost or (directory.outcome is _Outcome.NO_ROOM and has_room):
                directory.outcome = directory.tried = None

    def _forget_refusals(self) -> None:
        """Other keys may trust what was refused."""
        for directory in self._directories.values():
            if directory.outcome is _Outcome.REFUSED:
                directory.outcome = directory.tried = None

    async def settle(self) -> None:
        """Wait for what has begun."""
        await asyncio.gather(*self._tasks.values())

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(name))

    async def _load(self, name: str, directory: _Directory, stamp: Stamp) -> None:
        try:
            check_name(name)
            info = await self._engine.load_adapter(name, str(self._folder / name), name, str(self._folder))
        except (EngineError, StatusError) as error:
            _log.warning("adapter %s of the folder was not loaded: %s", name, error)
            self._tell("LoadAdapter", name, error)
            if isinstance(error, StatusError) or error.kind in _REFUSED:
                directory.outcome, directory.tried = _Outcome.REFUSED, stamp
            elif error.kind is FailureKind.OVERLOADED:
                directory.outcome, directory.tried = _Outcome.NO_ROOM, stamp
                self._resident_when_full = len(self._engine.adapters.all())
            return
        directory.outcome, directory.tried, directory.loaded = _Outcome.LOADED, stamp, True
        _log.info("adapter loaded from the folder", extra={"adapter": name, "version": info.version})
        self._tell("LoadAdapter", name, version=info.version)

    async def _unload(self, name: str) -> None:
        try:
            await self._engine.unload_adapter(name)
        except EngineError as error:
            _log.warning("adapter %s was not unloaded: %s", name, error)
            self._tell("UnloadAdapter", name, error)
        else:
            self._tell("UnloadAdapter", name)

    def _tell(self, method: str, name: str, error: Exception | None = None, version: str | None = None) -> None:
        status = None if error is None else as_status(error)
        code, message = ("OK", None) if status is None else (status.code.name, status.message)
        self._audit.write("folder", method=method, adapter=name, version=version, code=code, error=message)
