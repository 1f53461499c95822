"""Adapters in the engine's core, without tensors: slots in fair order, versions, drains, and what the cache shares."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply, AdapterState, LoadAdapter
from ift_serve.engine.protocol.results import FailureKind, RequestFailed
from tests.support.engine_driver import Clock, Driver, generate
from tests.support.oracle_host import OracleHost
from tests.support.paged_oracle import PagedOracle


def make(slots: int = 4, clock: Clock | None = None, **options: Any) -> tuple[Driver, OracleHost]:
    host = OracleHost(slots)
    config = EngineConfig(model="oracle", max_batch_tokens=64, max_sequences=8, **options)
    core = EngineCore(PagedOracle(256), config, STRATEGIES, clock or time.monotonic, adapter_tensors=host)
    return Driver(core), host


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


@pytest.mark.parametrize("waiting", [3, 100])
def test_many_that_wait_for_a_slot_hold_nobody_else_up(waiting: int) -> None:
    driver, _ = make(slots=1, max_waiting=1000)
    for name in ("hot", "cold"):
        driver.load(name, name)
    driver.add(generate("long", [1, 2], adapter="hot", max_new_tokens=100, client="a"))
    driver.step()
    driver.add(*(generate(f"c{i}", [3, 4], adapter="cold", max_new_tokens=2, client="b") for i in range(waiting)))
    driver.add(generate("base", [5, 6], max_new_tokens=2, client="c"))
    for _ in range(3):
        driver.step()
    assert driver.answers["base"].finished and not driver.answers["long"].finished
    assert driver.core.stats().waiting == waiting
    driver.run()
    assert all(answer.finished for answer in driver.answers.values())


@pytest.mark.parametrize("waiting", [1, 100])
def test_a_request_without_a_row_gives_its_slot_to_those_before_it(waiting: int) -> None:
    driver, _ = make(slots=1, max_waiting=1000)
    for name in ("a", "b"):
        driver.load(name, name)
    driver.add(generate("low", [1, 2], adapter="a", max_new_tokens=40, priority=-1))
    driver.step()
    alone = dict(driver.answers["low"].tokens)
    driver.add(*(generate(f"w{i}", [7, 8, 9], max_new_tokens=10) for i in range(8)))
    driver.step()
    driver.step()
    assert driver.core.stats().preemptions == 1
    driver.add(*(generate(f"b{i}", [3, 4], adapter="b", max_new_tokens=2) for i in range(waiting)))
    for _ in range(20):
        driver.step()
    assert driver.answers["b0"].tokens
    driver.run(2000)
    low = driver.answers["low"]
    assert low.finished and low.tokens[0][: len(alone[0])] == alone[0] and len(low.tokens[0]) == 40


def test_who_waits_for_a_slot_does_not_keep_others_from_preempting() -> None:
    driver, _ = make(slots=1)
    for name in ("a", "b"):
        driver.load(name, name)
    driver.add(generate("hold", [1, 2], adapter="a", max_new_tokens=100))
    driver.add(*(generate(f"l{i}", [7, 8, 9], max_new_tokens=100) for i in range(7)))
    driver.step()
    driver.add(generate("cold", [3, 4], adapter="b", max_new_tokens=2, priority=10))
    driver.add(generate("high", [5, 6], max_new_tokens=2, priority=10))
    for _ in range(4):
        driver.step()
    assert driver.answers["high"].finished


def test_patience_runs_out_whoever_waits_first_for_a_slot() -> None:
    driver, _ = make(slots=1, max_waiting=100_000)
    for name in ("hot", "b", "c"):
        driver.load(name, name)
    driver.add(generate("h", [1, 2], adapter="hot", max_new_tokens=10, client="z"))
    driver.step()
    # Fair share between their clients lets now the one, now the other come first.
    driver.add(generate("cold x", [3, 4], adapter="b", max_new_tokens=2, client="x"))
    driver.add(generate("cold y", [3, 4], adapter="c", max_new_tokens=2, client="y"))
    for number in range(1000):
        driver.add(generate(f"h{number}", [number % 50] * 10, adapter="hot", max_new_tokens=3, client="xy"[number % 2]))
        driver.step()
        if driver.answers["cold x"].tokens or driver.answers["cold y"].tokens:
            break
    assert number < 200, "a waiting adapter never got its slot"


def test_a_candidate_that_waits_can_be_stopped() -> None:
    driver, _ = make(slots=1)
    for name in ("a", "b"):
        driver.load(name, name)
    driver.add(generate("x", [1, 2], adapter="a", max_new_tokens=8))
    driver.step()
    driver.add(generate("slotless", [1, 2], adapter="b", max_new_tokens=8))
    driver.step()
    driver.add(*(generate(f"rows {i}", [1, 2], max_new_tokens=8) for i in range(10)))
    for request in ("slotless", "rows 9"):
        driver.core.stop(request, 0)
        del driver.answers[request]
    answers = driver.run()
    assert all(answer.finished for answer in answers.values()) and driver.core.stats().waiting == 0


def test_the_same_files_load_under_two_names_at_once() -> None:
    driver, host = make()
    host.gate.clear()
    for name in "ab":
        driver.replies[name] = None
        driver.core.load_adapter(LoadAdapter(request_id=name, name=name, path="one", shown_path="one"))
        driver.step()
        assert not host.resident
    waiting = threading.Event()
    done = iter(range(2))
    driver.core.on_wake(lambda: waiting.set() if next(done) else None)
    host.gate.set()
    assert waiting.wait(10), "both are read before the engine steps"
    driver.step()
    assert all(isinstance(reply, AdapterReply) for reply in driver.replies.values()) and len(host.resident) == 2


def test_whoever_waits_for_a_version_to_go_is_told_when_it_is_loaded_again() -> None:
    driver, _ = make(clock=(clock := Clock()))
    driver.load("a", "one")
    driver.add(generate("r", [1, 2], adapter="a", max_new_tokens=20))
    driver.step()
    number = driver.unload("a", drain_seconds=5)
    driver.step()
    again = driver.load("a", "one")
    assert isinstance(again, AdapterReply) and again.adapters[0].state is AdapterState.READY
    reply = driver.replies[number]
    assert isinstance(reply, RequestFailed) and "loaded again" in reply.message
    clock.now += 10
    driver.run()
    assert driver.answers["r"].failure is None and len(driver.answers["r"].tokens[0]) == 20


def test_the_time_of_an_unload_does_not_outlive_it() -> None:
    driver, _ = make(clock=(clock := Clock()))
    driver.load("a", "one")
    driver.add(generate("r", [1, 2], adapter="a", max_new_tokens=20))
    driver.step()
    driver.unload("a", drain_seconds=5)
    driver.load("a", "one")
    driver.load("a", "two")
    clock.now += 10
    driver.run()
    assert driver.answers["r"].failure is None, "a version that was replaced drains without an end"


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
    assert driver.core.stats().adapter_bytes == 1000


def test_loading_what_is_loaded_changes_nothing() -> None:
    driver, host = make()
    assert driver.load("a", "one") != driver.load("b", "one")
    again = driver.load("a", "one")
    assert isinstance(again, AdapterReply) and again.adapters[0].state is AdapterState.READY
    assert len(host.resident) == 2


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
def test_case_37a_what_prefixes_versions_share(first: str, second: str, shares: bool) -> None:
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
    assert driver.core.stats().adapter_users == {}
