"""Which adapters the engine must have, whatever becomes of it: what is wanted, loaded again after its death, or lost.

A name is WANTED while the engine serves a version of it that came of a load. What the engine has is asked of the
index, which follows the engine's own states; kept here is what outlives an engine. ``docs/adapter-states.md`` draws it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count

from ift_serve.engine.protocol.adapter import SERVED, AdapterReply
from ift_serve.engine.protocol.results import RequestFailed
from ift_serve.engine.protocol.wire import StepOutputs
from ift_serve.frontend.adapter_index import AdapterIndex

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """Where an adapter came from, what clients know that as, and the version it was; see ``LoadAdapter``."""

    path: str
    shown_path: str
    root: str
    version: str = ""


class Standing(StrEnum):
    """Of a name."""

    UNWANTED = "unwanted"
    WANTED = "wanted"
    RESTORING = "restoring"
    LOST = "lost"


class NameEvent(StrEnum):
    """What can happen to a name."""

    LOADED = "a load of it succeeds"
    UNLOADED = "an unload of it is asked for, or its version is not served any more"
    DIED = "the engine dies"
    NOT_LOADED = "the new engine cannot load it"


UNWANTED, WANTED, RESTORING, LOST = Standing.UNWANTED, Standing.WANTED, Standing.RESTORING, Standing.LOST

TRANSITIONS: dict[tuple[Standing, NameEvent], Standing] = {
    (UNWANTED, NameEvent.LOADED): WANTED,
    (WANTED, NameEvent.LOADED): WANTED,
    (WANTED, NameEvent.UNLOADED): UNWANTED,
    (WANTED, NameEvent.DIED): RESTORING,
    (RESTORING, NameEvent.LOADED): WANTED,
    (RESTORING, NameEvent.NOT_LOADED): LOST,
    (RESTORING, NameEvent.DIED): RESTORING,
    (LOST, NameEvent.LOADED): WANTED,
    (LOST, NameEvent.UNLOADED): UNWANTED,
    (LOST, NameEvent.DIED): LOST,
}
"""Every other pair is impossible: loads and unloads of a name wait while it is RESTORING."""


@dataclass(slots=True)
class _Name:
    """``waiting``: calls that wait until it is loaded again; ``asked``: when it was asked for last, in their order."""

    source: AdapterSource
    standing: Standing = UNWANTED
    reason: str = ""
    waiting: int = 0
    asked: int = -1


class WantedAdapters:
    """The standing of every name, UNWANTED for those that are not here, and the loads that the engine has not answered.

    ``losses`` counts names that became LOST.
    """

    def __init__(self, index: AdapterIndex) -> None:
        self._index = index
        self._names: dict[str, _Name] = {}
        self._loads: dict[str, tuple[str, AdapterSource]] = {}
        self._asked = count()
        self.losses = 0

    @property
    def lost(self) -> dict[str, str]:
        """Names that a new engine could not load, and why; until they are loaded or unloaded."""
        return {name: entry.reason for name, entry in self._names.items() if entry.standing is LOST}

    @property
    def versions(self) -> set[str]:
        """Versions that have to be loaded again when the engine dies."""
        return {entry.source.version for entry in self._names.values() if entry.standing in (WANTED, RESTORING)}

    def is_restoring(self, name: str) -> bool:
        """Whether the name was wanted of an engine that died, and its successor has not loaded it yet."""
        entry = self._names.get(name)
        return entry is not None and entry.standing is RESTORING

    def loss(self, name: str) -> str | None:
        """Why the name is LOST, if it is."""
        entry = self._names.get(name)
        return entry.reason if entry is not None and entry.standing is LOST else None

    def note_asked(self, name: str) -> None:
        """A call names it: what was asked for last is loaded again first."""
        if (entry := self._names.get(name)) is not None:
            entry.asked = next(self._asked)

    @contextmanager
    def waiting_for(self, name: str) -> Iterator[None]:
        """A call waits until the name is loaded again: what most calls wait for is loaded first."""
        entry = self._names.get(name)
        if entry is None:
            yield
            return
        entry.waiting += 1
        try:
            yield
        finally:
            entry.waiting -= 1

    def to_restore(self) -> tuple[str, AdapterSource] | None:
        """Of what is RESTORING and not being loaded, what most calls wait for, then what was asked for last."""
        begun = {name for name, _ in self._loads.values()}
        left = [name for name, entry in self._names.items() if entry.standing is RESTORING and name not in begun]
        if not left:
            return None
        name = max(left, key=lambda name: (self._names[name].waiting, self._names[name].asked))
        return name, self._names[name].source

    def begin_load(self, request_id: str, name: str, source: AdapterSource) -> None:
        """A load is on its way to the engine."""
        self._loads[request_id] = (name, source)

    def unload(self, reference: str) -> None:
        """An unload of ``name`` or ``name@version`` is on its way to the engine."""
        name, _, version = reference.partition("@")
        entry = self._names.get(name)
        if entry is not None and (version in ("", entry.source.version) or entry.standing is LOST):
            self._happen(name, NameEvent.UNLOADED)

    def take(self, said: StepOutputs) -> None:
        """One step of the engine: answers to loads, and changes of versions, which the index gets."""
        if self._loads:
            for output in said.outputs:
                if isinstance(output, AdapterReply | RequestFailed) and output.request_id in self._loads:
                    self._answer(*self._loads.pop(output.request_id), output)
        for info in said.adapters:
            self._index.change(info)
        for name in {info.name for info in said.adapters}:
            entry = self._names.get(name)
            if entry is not None and entry.standing is WANTED:
                found = self._index.get(name, entry.source.version)
                if found is None or found.state not in SERVED:
                    self._happen(name, NameEvent.UNLOADED)

    def _answer(self, name: str, source: AdapterSource, output: AdapterReply | RequestFailed) -> None:
        if isinstance(output, AdapterReply):
            entry = self._names.setdefault(name, _Name(source))
            entry.source = replace(source, version=output.adapters[0].version)
            self._happen(name, NameEvent.LOADED)
        elif self.is_restoring(name):
            self._names[name].reason = output.message
            self._happen(name, NameEvent.NOT_LOADED)
            self.losses += 1
            _log.error("adapter %s could not be loaded again: %s", name, output.message)

    def engine_died(self) -> None:
        """The engine is gone, and its versions and unanswered loads with it."""
        self._loads.clear()
        for name in self._names:
            self._happen(name, NameEvent.DIED)
        self._index.clear()

    def _happen(self, name: str, event: NameEvent) -> None:
        """The only place where a standing changes."""
        entry = self._names[name]
        standing = TRANSITIONS.get((entry.standing, event))
        assert standing is not None, f"{name} is {entry.standing}: {event}"
        entry.standing = standing
        if standing is UNWANTED:
            del self._names[name]
