"""Adapters in the engine's core, without tensors: slots in fair order, versions, drains, and what the cache shares."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.adapters import AdapterFacts
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core import EngineCore
from ift_serve.engine.messages import AdapterReply, AdapterState, FailureKind, RequestFailed
from tests.support.engine_driver import Clock, Driver, generate
from tests.support.paged_oracle import PagedOracle


class OracleHost:
    """Adapters without weights: the path says what they are (``broken``, ``heads...``, or anything else)."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.read_versions: set[str] = set()
        self.resident: dict[str, int | None] = {}
        self.placed: dict[int, str] = {}
        self.gate = threading.Event()
        self.gate.set()

    def read(self, path: str) -> AdapterFacts:
        self.gate.wait(10)
        if path.startswith("broken"):
            raise ValueError(f"{path}: nothing but noise")
        heads = path.startswith("heads")
        version = f"{abs(hash(path)):016x}"[:16]
        self.read_versions.add(version)
        return AdapterFacts(version, 4, ["lora"], 1000, heads, not heads, path.startswith("whole"))

    def keep(self, version: str, key: str) -> None:
        self.read_versions.remove(version)
        self.resident[key] = None

    def discard(self, version: str) -> None:
        self.read_versions.discard(version)

    def place(self, key: str, slot: int) -> None:
        assert key in self.resident
        self.placed[slot] = key

    def forget(self, key: str, slot: int | None) -> None:
        del self.resident[key]
        if slot is not None:
            assert self.placed.pop(slot) == key


def make(slots: int = 4, clock: Clock | None = None, **options: object) -> tuple[Driver, OracleHost]:
    host = OracleHost(slots)
    config = EngineConfig(model="oracle", max_batch_tokens=64, max_sequences=8, **options)
    timing = {} if clock is None else {"clock": clock}
    return Driver(EngineCore(PagedOracle(256), config, STRATEGIES, adapter_host=host, **timing)), host


def test_a_request_waits_for_a_slot_and_gets_the_next_free_one() -> None:
    driver, host = make(slots=1)
    for name in ("a", "b"):
        assert isinstance(driver.load(name, name), AdapterReply)
    driver.add(generate("first", [1, 2, 3], adapter="a", max_new_tokens=20))
    driver.step()
    driver.add(generate("waits", [1, 2, 3], adapter="b", max_new_tokens=4))
    driver.add(generate("base", [1, 2, 3], max_new_tokens=4))
    for _ in range(8):
        driver.step()
    assert driver.answers["base"].finished, "the base model needs no slot"
    assert not driver.answers["waits"].tokens
    driver.run()
    assert driver.answers["waits"].finished and list(host.placed) == [1]


def test_hot_adapters_cannot_starve_one_that_waits() -> None:
    driver, _ = make(slots=1)
    for name in ("hot", "cold"):
        driver.load(name, name)
    driver.add(generate("h0", [1, 2], adapter="hot", max_new_tokens=10))
    driver.step()
    driver.add(generate("cold", [3, 4], adapter="cold", max_new_tokens=4))
    hot_before_cold = 0
    for number in range(1, 400):
        driver.add(generate(f"h{number}", [1, 2], adapter="hot", max_new_tokens=3))
        driver.step()
        if driver.answers["cold"].tokens:
            break
        hot_before_cold += 1
    assert driver.answers["cold"].tokens, "the waiting adapter never got its slot"
    assert hot_before_cold < 200
    driver.run()


def test_a_new_version_takes_over_while_the_old_one_finishes() -> None:
    driver, host = make()
    first = driver.load("a", "one")
    assert isinstance(first, AdapterReply)
    driver.add(generate("old", [1, 2, 3], adapter="a", max_new_tokens=12))
    driver.step()
    second = driver.load("a", "two")
    assert isinstance(second, AdapterReply)
    driver.add(generate("new", [1, 2, 3], adapter="a", max_new_tokens=3))
    assert len(host.resident) == 2
    answers = driver.run()
    names = {key: answer.usage.adapter for key, answer in answers.items() if answer.usage}
    assert names == {"old": f"a@{first.adapters[0].version}", "new": f"a@{second.adapters[0].version}"}
    assert list(host.resident) == [names["new"]], "the old version's memory is free"
    assert driver.core.load().adapter_bytes == 1000


def test_loading_what_is_loaded_changes_nothing() -> None:
    driver, host = make()
    assert driver.load("a", "one") != driver.load("b", "one")
    again = driver.load("a", "one")
    assert isinstance(again, AdapterReply) and again.adapters[0].state is AdapterState.READY
    assert len(host.resident) == 2 and not host.read_versions


def test_a_load_that_fails_is_told_and_the_old_version_stays() -> None:
    driver, host = make()
    driver.load("a", "one")
    failed = driver.load("a", "broken")
    assert isinstance(failed, RequestFailed) and failed.kind is FailureKind.UNFIT
    assert "nothing but noise" in failed.message
    assert [c.state for c in driver.changes if c.message] == [AdapterState.FAILED]
    assert len(host.resident) == 1
    driver.add(generate("r", [1], adapter="a", max_new_tokens=2))
    assert driver.run()["r"].finished


def test_a_drain_that_takes_too_long_ends_the_requests() -> None:
    clock = Clock()
    driver, host = make(clock=clock)
    driver.load("a", "one")
    driver.add(generate("r", [1, 2], adapter="a", max_new_tokens=200))
    driver.step()
    number = driver.unload("a", drain_seconds=5)
    driver.step()
    assert driver.replies[number] is None and not driver.answers["r"].finished
    clock.now += 6
    driver.step()
    reply, failure = driver.replies[number], driver.answers["r"].failure
    assert failure is not None and failure.kind is FailureKind.CANCELLED
    driver.step()
    reply = driver.replies[number]
    assert isinstance(reply, AdapterReply) and reply.adapters[0].state is AdapterState.UNLOADED
    assert not host.resident and not host.placed


@pytest.mark.parametrize(
    ("first", "second", "shares"),
    [("one", "one", True), ("one", "two", False), ("one", "", False), ("heads1", "", True), ("heads1", "heads2", True)],
)
def test_what_prefixes_versions_share(first: str, second: str, shares: bool) -> None:
    driver, _ = make()
    for path in {first, second} - {""}:
        driver.load(path, path)
    prompt = list(range(1, 41))
    driver.add(generate("x", prompt, adapter=first, max_new_tokens=1))
    driver.run()
    driver.add(generate("y", prompt, adapter=second, max_new_tokens=1))
    usage = driver.run()["y"].usage
    assert usage is not None and (usage.cached_tokens > 0) == shares


def test_segments_and_the_whole_instruction_part_prefixes_where_they_matter() -> None:
    driver, _ = make()
    driver.load("plain", "plain")
    driver.load("whole", "whole")
    prompt = list(range(1, 41))
    instruction, later = bytes([1] * 20 + [2] * 20), bytes([1] * 20 + [2] * 19 + [1])

    def cached(adapter: str, segments: bytes, name: str) -> int:
        driver.add(generate(name, prompt, adapter=adapter, segment_ids=segments, max_new_tokens=1))
        usage = driver.run()[name].usage
        assert usage is not None
        return usage.cached_tokens

    assert cached("plain", instruction, "p1") == 0 < cached("plain", instruction, "p2")
    # The last token is an instruction token now: earlier blocks are as they were, unless c enters them.
    assert cached("plain", later, "p3") > 0
    assert cached("whole", instruction, "w1") == 0 == cached("whole", later, "w2")


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 3),
    asked=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=20),
)
def test_every_request_ends_whatever_the_slots(slots: int, asked: list[tuple[int, int, int]]) -> None:
    driver, host = make(slots=slots)
    for number in range(1, 5):
        driver.load(f"a{number}", f"path{number}")
    for number, (adapter, length, tokens) in enumerate(asked):
        name = f"a{adapter}" if adapter else ""
        driver.add(generate(str(number), list(range(1, length + 1)), adapter=name, max_new_tokens=tokens))
        if number % 3 == 0:
            driver.step()
    answers = driver.run()
    assert all(answers[str(n)].finished and answers[str(n)].failure is None for n in range(len(asked)))
    assert len(set(host.placed.values())) == len(host.placed) <= slots
    assert driver.core.load().adapter_users == {}
