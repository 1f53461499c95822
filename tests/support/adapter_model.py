"""What an engine must hold of adapters, by what it was told: the model that a real one is held against.

It knows no states: a version is known while it is the current one of its name or a request began with it. Of the
memory it knows what is in it, in the order of use.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ift_serve.engine.protocol.adapter import LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.results import FailureKind
from tests.support.adapter_system import InFlight, version_of


@dataclass
class Load:
    message: LoadAdapter
    content: str | None = None
    """What was read, once it was."""


@dataclass
class EngineModel:
    """What an engine must hold, by what it was told."""

    limit: int
    evicts: bool
    current: dict[str, str] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    unloads: dict[str, set[str]] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)
    users: dict[InFlight, str] = field(default_factory=dict)
    expected: dict[str, FailureKind | str] = field(default_factory=dict)
    """The answer to each call that must have been answered: how it failed, or the version, or ``gone``."""
    held: list[str] = field(default_factory=list)
    """What takes memory, the version used longest ago first."""
    reading: set[str] = field(default_factory=set)
    """What of that is still being read again."""
    awaited: list[str] = field(default_factory=list)
    """What requests wait for and there was no room for, in the order asked."""
    read_again: list[tuple[str, str]] = field(default_factory=list)
    """Versions that were read again, and what was found."""

    @property
    def known(self) -> set[str]:
        return {f"{name}@{version}" for name, version in self.current.items()} | set(self.users.values())

    @property
    def resident(self) -> set[str]:
        return {key for key in self.held if key not in self.reading}

    def begin(self, request: InFlight, key: str) -> None:
        if key not in self.users.values() and key not in self.held:
            self.awaited.append(key)
        self.users[request] = key
        self._touch(key)

    def end(self, request: InFlight) -> None:
        key = self.users.pop(request)
        if key in self.awaited and key not in self.users.values():
            self.awaited.remove(key)
        self._touch(key)
        self.settle()

    def _touch(self, key: str) -> None:
        if key in self.held:
            self.held.remove(key)
            self.held.append(key)

    def _stays(self, key: str) -> bool:
        """Whether it cannot be evicted."""
        in_use = key in self.reading or key in self.users.values() or not self._is_current(key)
        return in_use or not self.evicts

    def _make_room(self, beside: list[str]) -> bool:
        """Evict what was used longest ago until one more fits beside those; False where that cannot be."""
        if len([key for key in beside if self._stays(key)]) >= self.limit:
            return False
        while len(beside) >= self.limit:
            gone = next(key for key in beside if not self._stays(key))
            beside.remove(gone)
            self.held.remove(gone)
        return True

    def _is_current(self, key: str) -> bool:
        name, _, version = key.partition("@")
        return self.current.get(name) == version

    def _beside(self, name: str) -> list[str]:
        """What takes memory beside a new version of ``name``."""
        return [key for key in self.held if key.partition("@")[0] != name or not self._is_current(key)]

    def load(self, message: LoadAdapter) -> None:
        staying = [key for key in self._beside(message.name) if self._stays(key)]
        if len(staying) >= self.limit and not (message.version and self.evicts):
            self.expected[message.request_id] = FailureKind.OVERLOADED
        else:
            self.loads.append(Load(message))

    def unload(self, message: UnloadAdapter, now: float) -> None:
        name, _, version = message.reference.partition("@")
        found = {key for key in self.known if key == message.reference or (not version and key[:2] == f"{name}@")}
        if not found:
            self.expected[message.request_id] = FailureKind.NOT_FOUND
            return
        self.unloads[message.request_id] = found
        for key in found:
            self.deadlines[key] = now + message.drain_seconds
            if self._is_current(key):
                del self.current[name]
        self.settle()

    def step(self, now: float) -> set[str]:
        """Take in what was read; returns versions whose requests must end."""
        blocked: set[str] = set()
        for load in list(self.loads):
            if load.content is None:
                blocked.add(load.message.name)
            elif load.message.name not in blocked:
                self.loads.remove(load)
                self._finish(load.message, load.content)
                self.settle()
        unreadable = set()
        for key, content in self.read_again:
            if key not in self.reading:
                continue
            self.reading.remove(key)
            if content == "broken" or version_of(content) != key.partition("@")[2]:
                self.held.remove(key)
                unreadable.add(key)
        self.read_again.clear()
        while self.awaited and self._make_room(list(self.held)):
            key = self.awaited.pop(0)
            self.held.append(key)
            self.reading.add(key)
        late = {k for k in self.users.values() if self.deadlines.get(k, now + 1) <= now and not self._is_current(k)}
        return late | unreadable

    def _finish(self, message: LoadAdapter, content: str) -> None:
        number, version = message.request_id, version_of(content)
        if content == "broken":
            self.expected[number] = FailureKind.UNFIT
        elif message.version and message.version != version:
            self.expected[number] = FailureKind.NOT_FOUND
        elif not self._take_in(message, key := f"{message.name}@{version}"):
            self.expected[number] = FailureKind.OVERLOADED
        else:
            self.current[message.name] = version
            self.expected[number] = version
            self.deadlines.pop(key, None)
            for waiting, keys in list(self.unloads.items()):
                if key in keys:
                    del self.unloads[waiting]
                    self.expected[waiting] = FailureKind.CANCELLED

    def _take_in(self, message: LoadAdapter, key: str) -> bool:
        """Whether what was read has room, or need not have any: a restart loads more than fits."""
        beside = self._beside(message.name)
        if self.evicts and message.version and key not in self.known and len(beside) >= self.limit:
            return True
        if key in self.held:
            if key in self.reading:
                self.reading.remove(key)
                self._touch(key)
            return True
        if not self._make_room(beside):
            return False
        self.held.append(key)
        if key in self.awaited:
            self.awaited.remove(key)
        return True

    def settle(self) -> None:
        """What nobody knows any more is gone, and unloads of it are answered."""
        self.held = [key for key in self.held if key in self.known]
        self.reading &= self.known
        self.awaited = [key for key in self.awaited if key in self.known]
        for number, keys in list(self.unloads.items()):
            # What was freed stays freed for this unload, even if it is loaded again.
            self.unloads[number] = keys & self.known
            if not self.unloads[number]:
                del self.unloads[number]
                self.expected[number] = "gone"
        self.deadlines = {key: end for key, end in self.deadlines.items() if key in self.known}
