"""How requests end early: refused, stopped, aborted, out of time, or lost with a failed step."""

from __future__ import annotations

from typing import Any

import pytest

from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.core.strategy import Branch, Control, Strategy
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.results import FailureKind, FinishReason, RequestFailed
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.sequences.step import SampledToken
from tests.support.engine_driver import Clock, Driver, generate, make_core, solo
from tests.support.paged_oracle import PagedOracle

PROMPT = [5, 17, 3, 44, 9, 61, 2, 8, 33]


def failure(driver: Driver, name: str = "a") -> RequestFailed:
    answer = driver.run()[name]
    assert answer.failure is not None
    return answer.failure


def score(context: list[int], *continuations: list[int]) -> ScoreRequest:
    return ScoreRequest(request_id="a", token_ids=context, continuations=list(continuations))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (generate("a", []), "token_ids"),
        (generate("a", [97]), "token_ids"),
        (generate("a", [-1]), "token_ids"),
        (generate("a", [1] * 60), "token_ids"),
        (generate("a", [1] * 45), "token_ids"),
        (generate("a", PROMPT, max_new_tokens=40), "sampling.max_new_tokens"),
        (generate("a", PROMPT, max_new_tokens=0), "sampling.max_new_tokens"),
        (generate("a", PROMPT, candidates=0), "sampling.candidates"),
        (generate("a", PROMPT, logit_bias={97: 1.0}), "sampling.logit_bias"),
        (generate("a", PROMPT, segment_ids=b"\x01"), "segment_ids"),
        (generate("a", PROMPT, strategy="guess"), "strategy"),
        (score([], [1]), "token_ids"),
        (score([1]), "continuations"),
        (score([1], [2], [97]), "continuations[1]"),
        (score([1], [2], [3] * 59), "continuations[1]"),
        (score([1], [3] * 48), "continuations[0]"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_field(request_: GenerateRequest | ScoreRequest, field: str) -> None:
    driver = Driver(make_core(PagedOracle(10, context_length=60)))
    driver.add(request_)
    failed = failure(driver)
    if field == "continuations[0]" and len(request_.token_ids) == 1:
        assert failed.message.count("exceed the cache")
    assert (failed.kind, failed.field) == (FailureKind.INVALID, field)
    assert field in failed.message


def test_what_just_fits_is_answered() -> None:
    driver = Driver(make_core(PagedOracle(10)))
    driver.add(generate("a", PROMPT, max_new_tokens=41 - len(PROMPT), candidates=2, temperature=1.0))
    driver.add(ScoreRequest(request_id="b", token_ids=[1], continuations=[[3] * 40, [4] * 40]))
    answers = driver.run()
    assert answers["a"].failure is None and answers["b"].failure is None


def test_an_adapter_that_is_not_loaded_is_not_found() -> None:
    driver = Driver(make_core(PagedOracle(10)))
    driver.add(GenerateRequest(request_id="a", token_ids=[1], adapter="tuned"))
    assert failure(driver).kind is FailureKind.NOT_FOUND


def test_an_id_in_use_is_refused() -> None:
    core = make_core(PagedOracle(10))
    core.add(generate("a", PROMPT))
    core.add(generate("a", PROMPT))
    (failed,) = [output for output in core.step().outputs if isinstance(output, RequestFailed)]
    assert failed.field == "request_id"


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    driver = Driver(make_core(PagedOracle(64), max_waiting=3))
    driver.add(*[generate(f"r{i}", PROMPT) for i in range(5)])
    answers = driver.run()
    refused = [answer.failure for answer in answers.values() if answer.failure is not None]
    assert [failed.kind for failed in refused] == [FailureKind.OVERLOADED] * 2
    assert all(0 < failed.retry_after <= 30 for failed in refused)


def free(core: EngineCore) -> int:
    load = core.stats()
    return load.free_blocks + load.cached_blocks


def test_an_aborted_request_frees_everything_at_once_and_is_silent() -> None:
    driver = Driver(make_core(PagedOracle(64), max_sequences=3))
    driver.add(generate("a", PROMPT, candidates=5, temperature=1.0), generate("b", PROMPT))
    for _ in range(3):
        driver.step()
    said = len(driver.answers["a"].outputs)
    driver.core.abort("a")
    driver.core.abort("b")
    driver.core.check_integrity()
    assert free(driver.core) == 64
    assert not driver.core.has_work()
    assert len(driver.answers["a"].outputs) == said


def test_aborting_a_waiting_request_leaves_the_others_in_order() -> None:
    driver = Driver(make_core(PagedOracle(64), max_sequences=1))
    driver.add(*[generate(f"r{i}", PROMPT) for i in range(3)])
    driver.step()
    driver.core.abort("r1")
    driver.core.abort("unknown")
    answers = driver.run()
    assert [answers[f"r{i}"].finished for i in range(3)] == [True, False, True]


def test_a_stopped_candidate_is_silent_while_the_others_go_on() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    request = generate("a", PROMPT, candidates=3, temperature=1.0, max_new_tokens=10)
    driver.add(request)
    for _ in range(4):
        driver.step()
    spoken = list(driver.answers["a"].tokens[1])
    driver.core.stop("a", 1)
    driver.core.check_integrity()
    answer = driver.run()["a"]
    assert answer.finished
    assert answer.tokens[1] == spoken and 1 not in answer.reasons
    alone = solo(request)
    assert (answer.tokens[0], answer.tokens[2]) == (alone.tokens[0], alone.tokens[2])


def test_stopping_every_candidate_ends_the_request() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    driver.add(generate("a", PROMPT, candidates=2, temperature=1.0))
    for _ in range(3):
        driver.step()
    driver.core.stop("a", 0)
    driver.core.stop("a", 1)
    driver.core.stop("a", 1)
    assert not driver.core.has_work()
    assert free(driver.core) == 64


def timed(clock: Clock, **options: Any) -> Driver:
    return Driver(make_core(PagedOracle(64), clock=clock, **options))


def test_at_its_deadline_a_running_request_keeps_what_it_has() -> None:
    clock = Clock()
    driver = timed(clock)
    driver.add(generate("a", PROMPT, candidates=2, temperature=1.0, deadline=clock.now + 1))
    for _ in range(4):
        driver.step()
    clock.now += 1
    answer = driver.run()["a"]
    assert answer.reasons == {0: FinishReason.DEADLINE, 1: FinishReason.DEADLINE}
    assert answer.finished and answer.failure is None
    assert all(len(tokens) > 0 for tokens in answer.tokens.values())
    assert free(driver.core) == 64


def test_at_its_deadline_a_waiting_request_fails() -> None:
    clock = Clock()
    driver = timed(clock, max_sequences=1)
    driver.add(generate("first", PROMPT), generate("a", PROMPT, deadline=clock.now + 1))
    driver.step()
    clock.now += 1
    assert failure(driver).kind is FailureKind.DEADLINE
    assert driver.answers["first"].failure is None


def test_a_deadline_that_has_passed_is_not_begun() -> None:
    clock = Clock()
    driver = timed(clock)
    driver.add(generate("a", PROMPT, deadline=clock.now - 1))
    assert failure(driver).kind is FailureKind.DEADLINE


def test_a_request_that_ended_in_time_is_not_ended_again() -> None:
    clock = Clock()
    driver = timed(clock)
    driver.add(generate("a", PROMPT, max_new_tokens=2, deadline=clock.now + 1))
    driver.run()
    clock.now += 2
    driver.add(generate("b", PROMPT))
    assert driver.run()["a"].reasons == {0: FinishReason.LENGTH}


def test_deadlines_of_ended_requests_are_not_kept() -> None:
    clock = Clock()
    driver = timed(clock)
    driver.add(generate("long", PROMPT, max_new_tokens=120, deadline=clock.now + 50))
    for i in range(100):
        driver.add(generate(f"r{i}", PROMPT, max_new_tokens=1, deadline=clock.now + 100))
        driver.step()
    assert len(driver.core._deadlines) < 80
    clock.now += 60
    assert driver.run()["long"].reasons == {0: FinishReason.DEADLINE}


def test_queue_and_first_token_times_are_told() -> None:
    clock = Clock()
    driver = timed(clock, max_sequences=1)
    driver.add(generate("first", PROMPT, max_new_tokens=2), generate("a", PROMPT, arrival=clock.now))
    while not driver.answers["first"].finished:
        driver.step()
        clock.now += 1
    usage = driver.run()["a"].usage
    assert usage is not None
    assert usage.queue_seconds == 2 and usage.first_token_seconds == 2


def test_a_failed_step_fails_what_was_in_flight_and_nothing_later() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))
    driver.add(generate("a", PROMPT), generate("b", PROMPT))
    driver.step()
    oracle.fail_next = True
    driver.step()
    assert {answer.failure.kind for answer in driver.answers.values() if answer.failure} == {FailureKind.INTERNAL}
    driver.add(generate("c", PROMPT))
    answer = driver.run()["c"]
    assert answer.usage is not None and answer.usage.cached_tokens == 0
    assert answer.tokens == solo(generate("c", PROMPT)).tokens


def test_an_engine_that_keeps_failing_gives_up() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle))

    def fail(name: str) -> None:
        driver.add(generate(name, PROMPT))
        oracle.fail_next = True
        driver.step()

    fail("first")
    fail("second")
    with pytest.raises(RuntimeError, match="told to fail"):
        fail("third")


class Clumsy(Strategy):
    """Fails on its third token."""

    width = 2
    streams = True
    records = False

    def __init__(self, request: GenerateRequest) -> None:
        self._seen = 0

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        self._seen += 1
        if self._seen == 3:
            raise ZeroDivisionError

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        raise AssertionError("not reached")


def test_a_failing_strategy_fails_its_request_alone() -> None:
    driver = Driver(make_core(PagedOracle(64), {"clumsy": Clumsy, "sample": _sample}))
    driver.add(generate("a", PROMPT, strategy="clumsy"), generate("b", PROMPT))
    assert failure(driver).kind is FailureKind.INTERNAL
    assert driver.answers["b"].tokens == solo(generate("b", PROMPT)).tokens


def test_a_strategy_that_cannot_be_made_fails_its_request_alone() -> None:
    def cannot(request: GenerateRequest) -> Any:
        raise ZeroDivisionError

    driver = Driver(make_core(PagedOracle(64), {"cannot": cannot, "sample": _sample}))
    driver.add(generate("a", PROMPT, strategy="cannot"), generate("b", PROMPT))
    assert failure(driver).kind is FailureKind.INTERNAL
    assert driver.answers["b"].failure is None


def _sample(request: GenerateRequest) -> Any:
    from ift_serve.decoding.sample import Sample

    return Sample(request)


def test_default_sampling_is_accepted() -> None:
    driver = Driver(make_core(PagedOracle(400)))
    driver.add(GenerateRequest(request_id="a", token_ids=[1, 2], sampling=SamplingParams()))
    assert driver.run()["a"].failure is None
