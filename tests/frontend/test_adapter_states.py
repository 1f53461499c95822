"""Adapter states of both processes against a model that knows the newest version of each name and who uses what.

Loads, unloads, requests, preemptions, reads in any order, damaged files, a full server, crashes and restarts come in
random order.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ift_serve.engine.protocol.adapter import SERVED, AdapterReply, AdapterState, LoadAdapter
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.frontend.wanted_adapters import AdapterSource
from tests.support.adapter_model import EngineModel
from tests.support.adapter_system import BYTES, Engine, System, version_of

NAMES = ("a", "b", "c")
PATHS = ("p", "q", "r")
CONTENTS = ("one", "two", "three", "broken")


class Adapters(RuleBasedStateMachine):
    """Both processes and the model side by side."""

    @initialize(slots=st.integers(1, 2), limit=st.integers(1, 4), evicts=st.booleans())
    def begin(self, slots: int, limit: int, evicts: bool) -> None:
        self.system = System(slots, limit, dict.fromkeys(PATHS, "one"), evicts=evicts)
        self.model = EngineModel(limit, evicts)
        self.must_return: dict[str, str] = {}
        """What the new engine must load again, by name: the version."""
        self.overtaken: set[tuple[str, str]] = set()
        """Versions of which an unload was asked for since they were loaded."""

    @property
    def engine(self) -> Engine:
        assert self.system.engine is not None
        return self.system.engine

    def alive(self) -> bool:
        return self.system.engine is not None

    @rule(path=st.sampled_from(PATHS), content=st.sampled_from(CONTENTS))
    def write(self, path: str, content: str) -> None:
        self.system.disk[path] = content

    @precondition(alive)
    @rule(name=st.sampled_from(NAMES), path=st.sampled_from(PATHS))
    def load(self, name: str, path: str) -> None:
        if not self.system.wanted.is_restoring(name):
            self.system.load(name, AdapterSource(path, path, ""))

    @precondition(alive)
    @rule(name=st.sampled_from(NAMES), path=st.sampled_from(PATHS), uses=st.integers(0, 2))
    def load_whole(self, name: str, path: str, uses: int) -> None:
        """Load and, if that succeeds, begin requests: what the steps one by one come to rarely."""
        self.load(name, path)
        self.catch_up()
        while self.engine.reader.waiting:
            self.read(0)
        self.catch_up()
        for _ in range(uses):
            self.use(name, "")

    @precondition(alive)
    @rule()
    def catch_up(self) -> None:
        """All messages arrive, and the engine makes a step."""
        while self.system.to_engine:
            self.receive_in_engine()
        self.step()
        while self.system.to_server:
            self.receive_in_server()

    @precondition(alive)
    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(("", *CONTENTS)), seconds=st.sampled_from((0.0, 5.0)))
    def unload(self, name: str, content: str, seconds: float) -> None:
        if self.system.wanted.is_restoring(name):
            return
        if self.system.wanted.loss(name) is not None:
            del self.must_return[name]
        reference = f"{name}@{version_of(content)}" if content else name
        self.system.unload(reference, seconds)
        versions = {info.version for info in self.system.index.all() if info.name == name}
        self.overtaken |= {(name, v) for v in versions if reference in (name, f"{name}@{v}")}

    @precondition(lambda self: self.alive() and self.system.to_engine)
    @rule()
    def receive_in_engine(self) -> None:
        message = self.system.receive_in_engine()
        if isinstance(message, LoadAdapter):
            self.model.load(message)
        else:
            self.model.unload(message, self.system.clock())

    @precondition(lambda self: self.alive() and self.engine.reader.waiting)
    @rule(choice=st.integers(0, 9))
    def read(self, choice: int) -> None:
        waiting = self.engine.reader.waiting
        key = list(waiting)[choice % len(waiting)]
        message = waiting[key]
        self.engine.reader.finish(key)
        content = self.system.disk[message.path]
        for load in self.model.loads:
            if load.message is message:
                load.content = content
                return
        self.model.read_again.append((f"{message.name}@{message.version}", content))

    @precondition(alive)
    @rule()
    def step(self) -> None:
        expired = self.model.step(self.system.clock())
        said, ended = self.engine.step()
        assert set(ended) == {request for request, key in self.model.users.items() if key in expired}
        for request in ended:
            self.model.end(request)
        if said.outputs or said.adapters:
            self.system.to_server.append(said)

    @precondition(lambda self: self.system.to_server)
    @rule()
    def receive_in_server(self) -> None:
        said = self.system.receive_in_server()
        for output in said.outputs:
            assert isinstance(output, AdapterReply) or output.request_id in self.model.expected
            if isinstance(output, AdapterReply) and output.request_id.startswith("load"):
                info = output.adapters[0]
                assert info.version in {i.version for i in said.adapters if i.state in SERVED}, "not told"
                self.overtaken.discard((info.name, info.version))
                self.must_return.pop(info.name, None)

    @precondition(alive)
    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(("", *CONTENTS)))
    def use(self, name: str, content: str) -> None:
        current = self.model.current.get(name)
        served = current is not None and content in ("", *(c for c in CONTENTS if version_of(c) == current))
        key = self.engine.begin(f"{name}@{version_of(content)}" if content else name)
        assert key == (f"{name}@{current}" if served else None)
        if key is not None:
            self.model.begin(self.engine.waiting[-1], key)

    @precondition(alive)
    @rule()
    def fill(self) -> None:
        """More adapters than the memory holds, if it is small."""
        for name, path in zip(NAMES, PATHS, strict=True):
            self.load_whole(name, path, 0)

    def evicted(self) -> list[str]:
        """Names whose versions are not in memory."""
        current = sorted(self.model.current.items()) if self.alive() else []
        return [name for name, version in current if f"{name}@{version}" not in self.model.held]

    @precondition(lambda self: self.evicted())
    @rule(choice=st.integers(0, 9), uses=st.integers(1, 2))
    def use_what_was_evicted(self, choice: int, uses: int) -> None:
        names = self.evicted()
        for _ in range(uses):
            self.use(names[choice % len(names)], "")

    @precondition(lambda self: self.alive() and self.engine.requests)
    @rule(choice=st.integers(0, 9))
    def end(self, choice: int) -> None:
        request = self.engine.requests[choice % len(self.engine.requests)]
        self.engine.end(request)
        self.model.end(request)

    @precondition(lambda self: self.alive() and self.engine.running)
    @rule(choice=st.integers(0, 9))
    def preempt(self, choice: int) -> None:
        self.engine.preempt(self.engine.running[choice % len(self.engine.running)])

    @rule(seconds=st.sampled_from((1.0, 10.0)))
    def wait(self, seconds: float) -> None:
        self.system.clock.now += seconds

    @precondition(alive)
    @rule()
    def crash(self) -> None:
        ready = {i.name: i.version for i in self.system.index.all() if i.state in SERVED}
        self.must_return |= {n: v for n, v in ready.items() if (n, v) not in self.overtaken}
        self.system.die()
        self.model = EngineModel(self.model.limit, self.model.evicts)
        self.overtaken.clear()

    @precondition(lambda self: not self.alive())
    @rule()
    def restart(self) -> None:
        self.system.start()

    @precondition(lambda self: self.alive() and self.system.wanted.to_restore())
    @rule()
    def restore(self) -> None:
        found = self.system.wanted.to_restore()
        assert found is not None and found[1].version == self.must_return[found[0]]
        self.system.load(*found)

    @precondition(lambda self: self.alive() and self.system.wanted.to_restore())
    @rule()
    def restore_all(self) -> None:
        while self.system.wanted.to_restore():
            self.restore()
        self.catch_up()
        while self.engine.reader.waiting:
            self.read(0)
        self.catch_up()

    @invariant()
    def the_engine_holds_what_the_model_holds(self) -> None:
        if not self.alive():
            return
        registry, host, model = self.engine.registry, self.engine.host, self.model
        assert host.resident == model.resident
        assert registry.bytes == BYTES * len(model.held)
        for name in NAMES:
            try:
                found = registry.resolve(name)
                assert found is not None and found.metadata.version == model.current[name]
            except RefusedError:
                assert name not in model.current, "a version that is loaded is not served"
        in_flight: dict[str, int] = {}
        for key in model.users.values():
            in_flight[key] = in_flight.get(key, 0) + 1
        assert registry.in_flight == in_flight

    @invariant()
    def a_running_request_keeps_its_version_and_its_slot(self) -> None:
        for request in self.engine.running if self.alive() else ():
            assert self.model.users[request] == request.adapter.key == self.engine.host.placed[request.slot]

    @invariant()
    def what_is_wanted_is_ready_and_what_was_is_loaded_again_or_lost(self) -> None:
        wanted, index = self.system.wanted, self.system.index
        for name in NAMES:
            assert len([i for i in index.all() if i.name == name and i.state in SERVED]) <= 1
            assert wanted.is_restoring(name) == (name in self.must_return and wanted.loss(name) is None)
        ready = {(i.name, i.version) for i in index.all() if i.state in SERVED}
        restoring = {v for n, v in self.must_return.items() if wanted.is_restoring(n)}
        assert wanted.versions == {v for _, v in ready - self.overtaken} | restoring

    def teardown(self) -> None:
        """Let everything that was begun come to its end."""
        if not hasattr(self, "system"):
            return
        if not self.alive():
            self.restart()
        for _ in range(200):
            if self.system.to_engine:
                self.receive_in_engine()
            elif self.engine.reader.waiting:
                self.read(0)
            elif self.system.wanted.to_restore():
                self.restore()
            elif self.engine.running:
                self.end(len(self.engine.waiting))
            elif self.engine.registry.busy or self.engine.registry.loading or self.engine.waiting:
                self.step()
            elif self.system.to_server:
                self.receive_in_server()
            else:
                break
            self.the_engine_holds_what_the_model_holds()
        else:
            raise AssertionError("something is stuck")
        assert None not in self.system.answers.values(), "a caller waits for ever"
        for number, expected in self.model.expected.items():
            answer = self.system.answers[number]
            assert answer is not None
            said = answer.adapters[-1].version if isinstance(answer, AdapterReply) else answer.kind
            gone = isinstance(answer, AdapterReply) and answer.adapters[0].state is AdapterState.UNLOADED
            assert ("gone" if gone else said) == expected, (number, said, expected)
        current = {(name, version) for name, version in self.model.current.items()}
        assert {(i.name, i.version) for i in self.system.index.all()} == current
        assert self.system.wanted.versions == {version for _, version in current}
        for name in dict(self.model.current):
            self.unload(name, "", 0.0)
            self.receive_in_engine()
        self.step()
        assert not self.engine.host.resident and not self.engine.host.placed, "memory and slots are free"
        self.system.disk["p"] = "one"
        running = min(self.system.slots, self.system.limit)
        for name in NAMES[:running]:
            self.load(name, "p")
            self.receive_in_engine()
            self.read(0)
            self.step()
            self.use(name, "")
        self.step()
        assert len(self.engine.running) == running, "every slot can be taken again"


Adapters.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAdapters = Adapters.TestCase
