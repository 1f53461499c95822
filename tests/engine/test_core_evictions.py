"""Adapters beyond what host memory holds: which one leaves it, and that nobody notices but by the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.decoding.sample import Sample
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.core.strategy import Strategy
from ift_serve.engine.protocol.adapter import AdapterReply, AdapterState, LoadAdapter
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, RequestFailed
from ift_serve.engine.protocol.score import ScoreRequest
from tests.support.engine_driver import Answer, Clock, Driver, generate
from tests.support.oracle_host import OracleHost
from tests.support.paged_oracle import PagedOracle

PROMPT = [5, 17, 3, 44]


def make(
    held: int, clock: Callable[[], float] = time.monotonic, strategies: Any = STRATEGIES, **options: Any
) -> tuple[Driver, OracleHost]:
    """An engine whose host memory holds so many adapters."""
    host = OracleHost(4)
    config = EngineConfig(model="oracle", max_batch_tokens=64, max_sequences=8, max_adapters=held, **options)
    return Driver(EngineCore(PagedOracle(256), config, strategies, clock, adapter_tensors=host)), host


def loaded(driver: Driver, *names: str) -> list[str]:
    """Load adapters one after the other, each from the path of its name; returns their versions."""
    replies = [driver.load(name, name) for name in names]
    return [reply.adapters[0].version for reply in replies if isinstance(reply, AdapterReply)]


def run(driver: Driver) -> dict[str, Answer]:
    """Step until there is no work, waiting for what is being read."""
    read = threading.Event()
    driver.core.on_wake(read.set)
    until = time.monotonic() + 60
    while driver.core.has_work():
        assert time.monotonic() < until, "requests wait for ever"
        driver.step()
        if driver.core.loading and not driver.core.stats().running:
            read.wait(0.05)
            read.clear()
    return driver.answers


def residents(host: OracleHost) -> list[str]:
    return sorted(key.partition("@")[0] for key in host.resident)


def states(driver: Driver, name: str) -> list[AdapterState]:
    return [change.state for change in driver.changes if change.name == name]


def test_a_load_beyond_the_cap_evicts_the_one_unused_for_longest() -> None:
    driver, host = make(2)
    loaded(driver, "a", "b")
    driver.add(generate("r", PROMPT, adapter="a"))
    run(driver)
    loaded(driver, "c")
    assert residents(host) == ["a", "c"], "a was used after b was loaded"
    assert states(driver, "b") == [AdapterState.LOADING, AdapterState.READY, AdapterState.EVICTED]
    stats = driver.core.stats()
    assert (stats.adapter_bytes, stats.adapter_evictions, stats.adapter_returns) == (2000, 1, 0)


def test_bytes_are_a_cap_too() -> None:
    driver, host = make(100, max_adapter_bytes=2500)
    loaded(driver, "a", "b", "c")
    assert residents(host) == ["b", "c"]


def test_an_evicted_adapter_answers_as_if_it_had_stayed() -> None:
    roomy, _ = make(100)
    small, host = make(1)
    for driver in (roomy, small):
        loaded(driver, "a", "b")
        driver.add(generate("r", PROMPT, adapter="a", temperature=1.0, candidates=3))
        driver.add(ScoreRequest(request_id="s", token_ids=PROMPT, continuations=[[1, 2]], adapter="a"))
    there, back = run(roomy), run(small)
    assert back["r"].tokens == there["r"].tokens and back["r"].failure is None
    assert back["r"].usage is not None and there["r"].usage is not None
    assert back["r"].usage.adapter == there["r"].usage.adapter
    assert back["s"].score is not None and there["s"].score is not None
    assert back["s"].score.scores == there["s"].score.scores
    assert residents(host) == ["a"]
    assert states(small, "a")[2:] == [AdapterState.EVICTED, AdapterState.RETURNING, AdapterState.READY]
    assert small.core.stats().adapter_returns == 1


def test_what_requests_use_stays_and_what_finds_no_room_waits_for_them() -> None:
    driver, host = make(1)
    loaded(driver, "a", "b")
    driver.add(generate("long", PROMPT, adapter="b", max_new_tokens=30))
    driver.step()
    driver.add(generate("waits", PROMPT, adapter="a"), generate("base", PROMPT))
    for _ in range(10):
        driver.step()
    assert driver.answers["base"].finished, "the base model needs no adapter"
    assert residents(host) == ["b"] and not driver.answers["waits"].tokens
    assert driver.core.stats().waiting == 1
    answers = run(driver)
    assert answers["long"].failure is None and len(answers["long"].tokens[0]) == 30
    assert answers["waits"].failure is None and len(answers["waits"].tokens[0]) == 8
    assert residents(host) == ["a"]


def test_a_load_is_refused_only_where_requests_use_all_that_there_is() -> None:
    driver, host = make(1)
    loaded(driver, "a")
    driver.add(generate("r", PROMPT, adapter="a", max_new_tokens=20))
    driver.step()
    refused = driver.load("b", "b")
    assert isinstance(refused, RequestFailed) and refused.kind is FailureKind.OVERLOADED
    assert "max_adapters" in refused.message and "try again later" in refused.message
    assert refused.retry_after > 0, "a caller is told when"
    run(driver)
    assert isinstance(driver.load("b", "b"), AdapterReply) and residents(host) == ["b"]


def test_an_operator_can_have_loads_refused_instead() -> None:
    driver, host = make(2, evict_adapters=False)
    loaded(driver, "a", "b")
    refused = driver.load("c", "c")
    assert isinstance(refused, RequestFailed) and refused.kind is FailureKind.OVERLOADED
    assert "unload one first" in refused.message and residents(host) == ["a", "b"]
    assert refused.retry_after == 0, "no time alone makes room"


def test_one_read_serves_all_that_wait() -> None:
    driver, host = make(1)
    loaded(driver, "a", "b")
    host.gate.clear()
    driver.add(*(generate(str(number), [number + 1, 2, 3], adapter="a") for number in range(5)))
    driver.step()
    host.gate.set()
    assert all(answer.finished and answer.failure is None for answer in run(driver).values())
    assert driver.core.stats().adapter_returns == 1


def test_one_that_cannot_be_read_again_is_said_and_tried_again() -> None:
    driver, host = make(1)
    loaded(driver, "a", "b")
    host.damaged.add("a")
    driver.add(generate("r", PROMPT, adapter="a"), generate("other", PROMPT, adapter="b"))
    answers = run(driver)
    failure = answers["r"].failure
    assert failure is not None and failure.kind is FailureKind.UNFIT
    assert "cannot be read again" in failure.message and "noise" in failure.message
    assert answers["other"].failure is None
    assert states(driver, "a")[-2:] == [AdapterState.RETURNING, AdapterState.EVICTED]
    host.damaged.clear()
    driver.add(generate("again", PROMPT, adapter="a"))
    assert run(driver)["again"].failure is None


def test_time_runs_out_while_an_adapter_is_read() -> None:
    driver, host = make(1, clock := Clock())
    loaded(driver, "a", "b")
    host.gate.clear()
    driver.add(generate("r", PROMPT, adapter="a", deadline=clock.now + 5))
    driver.step()
    clock.now += 6
    driver.step()
    failure = driver.answers["r"].failure
    assert failure is not None and failure.kind is FailureKind.DEADLINE
    host.gate.set()
    run(driver)
    assert driver.core.stats().waiting == 0


@pytest.mark.parametrize("is_full", [False, True])
def test_a_caller_who_leaves_while_an_adapter_is_read_leaves_nothing(is_full: bool) -> None:
    driver, host = make(1)
    loaded(driver, "a", "b")
    if is_full:
        driver.add(generate("holds", PROMPT, adapter="b", max_new_tokens=20))
    host.gate.clear()
    driver.add(generate("r", PROMPT, adapter="a"))
    driver.step()
    driver.core.stop("r", 0)
    driver.core.abort("r")
    del driver.answers["r"]
    host.gate.set()
    run(driver)
    stats = driver.core.stats()
    assert stats.waiting == 0 and stats.adapter_users == {}
    # What is being read already comes back, however long that takes.
    assert (states(driver, "a")[-1] is AdapterState.EVICTED) == is_full
    driver.add(generate("again", PROMPT, adapter="a"))
    assert run(driver)["again"].failure is None


def test_an_unload_lets_those_finish_that_wait_for_the_evicted_version() -> None:
    driver, host = make(1)
    loaded(driver, "a", "b")
    host.gate.clear()
    driver.add(generate("r", PROMPT, adapter="a"))
    driver.step()
    number = driver.unload("a")
    driver.step()
    assert driver.replies[number] is None
    driver.add(generate("late", PROMPT, adapter="a"))
    host.gate.set()
    answers = run(driver)
    assert answers["r"].failure is None and len(answers["r"].tokens[0]) == 8
    assert answers["late"].failure is not None and answers["late"].failure.kind is FailureKind.NOT_FOUND
    assert isinstance(driver.replies[number], AdapterReply) and not residents(host)


def test_a_replaced_version_still_answers_those_that_wait_for_it() -> None:
    driver, host = make(2)
    [first] = loaded(driver, "a")
    loaded(driver, "b", "c")
    host.gate.clear()
    driver.add(generate("old", PROMPT, adapter="a"))
    driver.step()
    driver.replies["load"] = None
    driver.core.load_adapter(LoadAdapter(request_id="load", name="a", path="other", shown_path="other"))
    host.gate.set()
    answers = run(driver)
    while driver.replies["load"] is None:
        driver.step()
    usage = answers["old"].usage
    assert usage is not None and usage.adapter == f"a@{first}" and answers["old"].failure is None
    driver.add(generate("new", PROMPT, adapter="a"))
    usage = run(driver)["new"].usage
    assert usage is not None and usage.adapter != f"a@{first}"


def test_a_strategy_is_made_once_its_adapter_is_there() -> None:
    """Strategies may ask an adapter's heads."""
    made: list[list[str]] = []

    def make_strategy(request: GenerateRequest) -> Strategy:
        made.append(residents(host))
        if request.adapter.startswith("c"):
            raise RefusedError(FailureKind.UNFIT, "it has no such head")
        return Sample(request)

    driver, host = make(1, strategies={**STRATEGIES, "asks": make_strategy})
    loaded(driver, "a", "c", "b")
    driver.add(generate("r", PROMPT, adapter="a", strategy="asks"))
    driver.add(generate("refused", PROMPT, adapter="c", strategy="asks"))
    answers = run(driver)
    assert made == [["a"], ["c"]]
    assert answers["r"].failure is None
    assert answers["refused"].failure is not None and "no such head" in answers["refused"].failure.message
    assert driver.core.stats().adapter_users == {} and driver.core.stats().waiting == 0


def test_a_load_again_of_what_is_evicted_brings_it_back() -> None:
    driver, host = make(1)
    [version, _] = loaded(driver, "a", "b")
    assert loaded(driver, "a") == [version] and residents(host) == ["a"]


def test_what_a_restart_loads_beyond_the_cap_is_evicted_at_once() -> None:
    """The server process asks for what is needed most first: what comes later must not push that out."""
    driver, host = make(2)
    versions = dict(zip("abc", loaded(make(9)[0], "a", "b", "c"), strict=True))
    for name, version in versions.items():
        driver.replies[name] = None
        driver.core.load_adapter(LoadAdapter(request_id=name, name=name, path=name, shown_path=name, version=version))
        while driver.replies[name] is None:
            driver.step()
    assert residents(host) == ["a", "b"]
    last = driver.replies["c"]
    assert isinstance(last, AdapterReply) and last.adapters[0].state is AdapterState.EVICTED
    driver.add(generate("r", PROMPT, adapter=f"c@{versions['c']}"))
    assert run(driver)["r"].failure is None


@settings(max_examples=40, deadline=None)
@given(
    held=st.integers(1, 3),
    asked=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=20),
    aborted=st.sets(st.integers(0, 19)),
)
def test_every_request_is_answered_alike_however_few_adapters_fit(
    held: int, asked: list[tuple[int, int, int]], aborted: set[int]
) -> None:
    answers = []
    for cap in (held, 100):
        driver, host = make(cap)
        loaded(driver, "a1", "a2", "a3", "a4")
        for number, (adapter, length, tokens) in enumerate(asked):
            name = f"a{adapter}" if adapter else ""
            driver.add(generate(str(number), list(range(1, length + 1)), adapter=name, max_new_tokens=tokens))
            if number % 3 == 0:
                driver.step()
            assert len(host.resident) <= cap
            if number in aborted:
                driver.core.abort(str(number))
        run(driver)
        assert len(host.resident) <= cap
        assert driver.core.stats().adapter_users == {} and driver.core.stats().waiting == 0
        kept = [str(number) for number in range(len(asked)) if number not in aborted]
        assert all(driver.answers[number].finished and driver.answers[number].failure is None for number in kept)
        answers.append({number: driver.answers[number].tokens for number in kept})
    assert answers[0] == answers[1]
