"""Unloads and loads of one adapter that overtake one another on their way between the two processes."""

from __future__ import annotations

from ift_serve.engine.protocol.adapter import AdapterReply, AdapterState
from ift_serve.frontend.wanted_adapters import AdapterSource
from tests.support.adapter_system import System, version_of


def test_an_unload_that_follows_a_load_closely_is_not_forgotten() -> None:
    """The engine unloads a version of which the server process hears only after it has asked for the unload."""
    system = System(1, 4, {"p": "one"})
    assert system.engine is not None
    system.load("a", AdapterSource("p", "p", ""))
    system.receive_in_engine()
    system.engine.reader.finish(0)
    system.to_server.append(system.engine.step()[0])
    system.unload("a", 0.0)
    system.receive_in_server()
    assert system.wanted.versions == {version_of("one")}
    system.receive_in_engine()
    system.to_server.append(system.engine.step()[0])
    system.receive_in_server()
    assert system.wanted.versions == set()


def test_a_load_that_an_unload_overtook_is_loaded_again_after_a_crash() -> None:
    """The version serves, whatever became of the one before it."""
    system = System(1, 4, {"p": "one", "q": "two"})
    assert system.engine is not None
    for path in "pq":
        system.load("a", AdapterSource(path, path, ""))
        system.receive_in_engine()
    system.engine.reader.finish(0)
    system.to_server.append(system.engine.step()[0])
    system.receive_in_server()
    system.unload("a", 0.0)
    system.receive_in_engine()
    system.engine.reader.finish(1)
    system.to_server.append(system.engine.step()[0])
    system.receive_in_server()
    system.die()
    found = system.wanted.to_restore()
    assert found is not None and found[1].version == version_of("two")


def test_a_version_that_an_unload_freed_may_be_loaded_again_while_the_unload_waits_for_another() -> None:
    system = System(2, 4, {"p": "one", "q": "two"})
    engine = system.engine
    assert engine is not None
    for number, path in enumerate("pqq"):
        if number == 2:
            unload = system.unload("a", 60.0)
            system.receive_in_engine()
            assert engine.host.resident == {f"a@{version_of('one')}"}
        system.load("a", AdapterSource(path, path, ""))
        system.receive_in_engine()
        engine.reader.finish(number)
        system.to_server.append(engine.step()[0])
        if number == 0:
            assert engine.begin("a")
    engine.end(engine.requests[0])
    system.to_server.append(engine.step()[0])
    while system.to_server:
        system.receive_in_server()
    answer = system.answers[unload]
    assert isinstance(answer, AdapterReply) and {info.state for info in answer.adapters} == {AdapterState.UNLOADED}
    assert engine.host.resident == {f"a@{version_of('two')}"}
    assert system.wanted.versions == {version_of("two")}
