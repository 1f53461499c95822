"""The adapters of both processes, with what is between them done by hand: messages, reads, the disk and the clock.

The registry, admission, slots, index and table of names are the real ones; there are no threads, sockets or tensors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from zlib import crc32

from ift_serve.engine.adapters.admission import AdapterAdmission
from ift_serve.engine.adapters.host import ReadAdapter
from ift_serve.engine.adapters.limits import AdapterLimits
from ift_serve.engine.adapters.loader import Loaded
from ift_serve.engine.adapters.registry import AdapterRegistry
from ift_serve.engine.adapters.version import AdapterMetadata, AdapterVersion
from ift_serve.engine.protocol.adapter import AdapterReply, LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, RequestFailed
from ift_serve.engine.protocol.stats import EngineStats
from ift_serve.engine.protocol.wire import StepOutputs
from ift_serve.engine.sequences.sequence import Owner
from ift_serve.frontend.adapter_index import AdapterIndex
from ift_serve.frontend.wanted_adapters import AdapterSource, WantedAdapters
from tests.support.engine_driver import Clock

BYTES = 1000


def version_of(content: str) -> str:
    """Of an adapter's files."""
    return f"{crc32(content.encode()):016x}"[:16]


class HandReader:
    """Reads when it is told to, in any order."""

    def __init__(self, read: Callable[[LoadAdapter], ReadAdapter], patience: float) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.waiting: dict[int, LoadAdapter] = {}
        self._read = read
        self._done: list[Loaded] = []

    def start(self, key: int, message: LoadAdapter) -> None:
        self.waiting[key] = message

    def finish(self, key: int) -> None:
        message = self.waiting.pop(key)
        try:
            self._done.append(Loaded(key, self._read(message), None))
        except ValueError as error:
            self._done.append(Loaded(key, None, error))

    def finished(self) -> list[Loaded]:
        done, self._done = self._done, []
        return done


class Host:
    """Keeps what the registry says, and notices a second word about the same thing."""

    def __init__(self, slots: int, disk: dict[str, str]) -> None:
        self.slots = slots
        self.resident: set[str] = set()
        self.placed: dict[int, str] = {}
        self._disk = disk

    def read(self, path: str, root: str) -> ReadAdapter:
        content = self._disk[path]
        if content == "broken":
            raise ValueError("nothing but noise")
        metadata = AdapterMetadata(version_of(content), 4, ["lora"], BYTES, False, False, False)
        return ReadAdapter(metadata, content)

    def keep(self, key: str, tensors: str) -> None:
        assert key not in self.resident
        self.resident.add(key)

    def place(self, key: str, slot: int) -> None:
        assert key in self.resident and key not in self.placed.values()
        self.placed[slot] = key

    def forget(self, key: str, slot: int | None) -> None:
        self.resident.remove(key)
        if slot is not None:
            assert self.placed.pop(slot) == key


@dataclass(eq=False)
class InFlight:
    """A request of the engine: what admission needs of an ``Owner``, and what became of it."""

    adapter: AdapterVersion
    rank: tuple[int, int]
    slot: int = 0

    @property
    def owner(self) -> Owner:
        return cast(Owner, self)


class Engine:
    """One engine process, from its start to its death."""

    def __init__(self, slots: int, limit: int, disk: dict[str, str], clock: Clock, evicts: bool) -> None:
        self.host = Host(slots, disk)
        self.reader: HandReader
        self.registry = AdapterRegistry(
            self.host, clock, limits=AdapterLimits(limit), evicts=evicts, make_reader=self._make_reader
        )
        self.admission = AdapterAdmission(self.registry)
        self.waiting: list[InFlight] = []
        self.running: list[InFlight] = []
        self._begun = 0

    def _make_reader(self, read: Callable[[LoadAdapter], ReadAdapter], patience: float) -> HandReader:
        self.reader = HandReader(read, patience)
        return self.reader

    @property
    def requests(self) -> list[InFlight]:
        return [*self.waiting, *self.running]

    def begin(self, reference: str) -> str | None:
        """A request; returns the version it began with, or None if it was refused."""
        try:
            adapter = self.registry.resolve(reference)
        except RefusedError:
            return None
        assert adapter is not None
        self.registry.use(adapter)
        self._begun += 1
        self.waiting.append(InFlight(adapter, (0, self._begun)))
        return adapter.key

    def end(self, request: InFlight) -> None:
        (self.running if request in self.running else self.waiting).remove(request)
        self.admission.end(request.owner)
        self.registry.leave(request.adapter)

    def preempt(self, request: InFlight) -> None:
        """It loses its blocks, and waits again."""
        self.running.remove(request)
        self.waiting.append(request)
        self.admission.suspend(request.owner)

    def step(self) -> tuple[StepOutputs, list[InFlight]]:
        """What there is to say, and the requests that ended: their version's time was over, or nothing reads it."""
        expired = self.registry.step()
        unreadable = [adapter for adapter, _ in self.registry.take_unreadable()]
        ended = [request for request in self.requests if request.adapter in [*expired, *unreadable]]
        for request in ended:
            self.end(request)
        for request in sorted(self.waiting, key=lambda request: request.rank):
            if request.adapter.is_resident and self.admission.admits(request.owner):
                request.slot = self.admission.start(request.owner)
                self.waiting.remove(request)
                self.running.append(request)
        replies, changes = self.registry.take_changes()
        return StepOutputs(outputs=[*replies], stats=EngineStats(), adapters=changes), ended


@dataclass
class System:
    """The server process, the disk, and an engine or none. ``answers``: to each load and unload, None until it came."""

    slots: int
    limit: int
    disk: dict[str, str]
    clock: Clock = field(default_factory=Clock)
    engine: Engine | None = None
    to_engine: deque[LoadAdapter | UnloadAdapter] = field(default_factory=deque)
    to_server: deque[StepOutputs] = field(default_factory=deque)
    answers: dict[str, AdapterReply | RequestFailed | None] = field(default_factory=dict)
    index: AdapterIndex = field(default_factory=AdapterIndex)
    evicts: bool = True

    def __post_init__(self) -> None:
        self.wanted = WantedAdapters(self.index)
        self.start()

    def start(self) -> None:
        self.engine = Engine(self.slots, self.limit, self.disk, self.clock, self.evicts)

    def die(self) -> None:
        """The engine is gone, and so is what was on its way; callers that wait are told."""
        self.engine = None
        self.to_engine.clear()
        self.to_server.clear()
        gone = FailureKind.UNAVAILABLE
        for number, answer in self.answers.items():
            self.answers[number] = answer or RequestFailed(request_id=number, kind=gone, message="it died")
        self.wanted.engine_died()

    def load(self, name: str, source: AdapterSource) -> str:
        number = f"load {len(self.answers)}"
        self.answers[number] = None
        self.wanted.begin_load(number, name, source)
        shown, version = source.shown_path, source.version
        message = LoadAdapter(request_id=number, name=name, path=source.path, shown_path=shown, version=version)
        self.to_engine.append(message)
        return number

    def unload(self, reference: str, drain_seconds: float) -> str:
        number = f"unload {len(self.answers)}"
        self.answers[number] = None
        self.wanted.unload(reference)
        self.to_engine.append(UnloadAdapter(request_id=number, reference=reference, drain_seconds=drain_seconds))
        return number

    def receive_in_engine(self) -> LoadAdapter | UnloadAdapter:
        assert self.engine is not None
        message = self.to_engine.popleft()
        if isinstance(message, LoadAdapter):
            self.engine.registry.load(message)
        else:
            self.engine.registry.unload(message)
        return message

    def receive_in_server(self) -> StepOutputs:
        said = self.to_server.popleft()
        for output in said.outputs:
            assert isinstance(output, AdapterReply | RequestFailed)
            assert self.answers[output.request_id] is None, "a second answer to one call"
            self.answers[output.request_id] = output
        self.wanted.take(said)
        return said
