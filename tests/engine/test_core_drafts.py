"""Drafted tokens in the core: fewer steps, the same answers, and every block where it was."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.reasoning import RequestLimits
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.protocol.score import ScoreRequest
from tests.engine.test_core_workloads import ALL, Message, make_request, same, tokens
from tests.support.engine_driver import Answer, Clock, Driver, generate, make_core, solo
from tests.support.foresight import Foresight
from tests.support.paged_oracle import PagedOracle

PROMPT = [5, 17, 3, 60, 2]


def drafting(blocks: int = 64, right: int = 10, longest: int = 6, **options: Any) -> tuple[Driver, PagedOracle]:
    oracle = PagedOracle(blocks)
    core = make_core(oracle, drafts=Foresight(oracle, right=right, longest=longest), **options)
    return Driver(core), oracle


def run(driver: Driver, *requests: GenerateRequest) -> Answer:
    driver.add(*requests)
    return driver.run()[requests[0].request_id]


def test_tokens_that_were_guessed_right_take_no_steps_of_their_own() -> None:
    driver, _ = drafting()
    request = generate("a", PROMPT, max_new_tokens=60)
    answer = run(driver, request)
    assert answer.tokens == solo(request).tokens
    assert answer.usage is not None and answer.usage.drafted_tokens >= answer.usage.accepted_tokens > 30
    assert driver.steps == 60 - answer.usage.accepted_tokens
    stats = driver.core.stats()
    assert (stats.drafted_tokens, stats.accepted_tokens) == (answer.usage.drafted_tokens, answer.usage.accepted_tokens)
    assert stats.generated_tokens == answer.usage.drawn_tokens == 60


def test_tokens_that_were_guessed_wrong_leave_nothing_behind() -> None:
    """Neither in the answer nor in the cache: a later request with the rejected tokens finds no such prefix."""
    driver, oracle = drafting(right=0, prefix_caching=True)
    request = generate("a", PROMPT, max_new_tokens=40)
    answer = run(driver, request)
    assert oracle.drafted > 40 and answer.tokens == solo(request).tokens
    assert answer.usage is not None and answer.usage.accepted_tokens == 0 and driver.steps == 40
    again = generate("b", [*PROMPT, *answer.tokens[0]], max_new_tokens=30, temperature=1.0, seed=4)
    assert run(driver, again).tokens == solo(again).tokens
    stats = driver.core.stats()
    assert stats.free_blocks + stats.cached_blocks == 64


@pytest.mark.parametrize("right", [3, 8, 10])
def test_an_end_token_ends_an_answer_within_an_accepted_run(right: int) -> None:
    for seed in range(12):
        driver, _ = drafting(right=right, longest=9)
        request = generate(
            "a", PROMPT, max_new_tokens=50, temperature=1.0, seed=seed, ignore_eos=False, stop_ids=[3, 4, 5, 6, 7]
        )
        answer, alone = run(driver, request), solo(request)
        assert (answer.tokens, answer.reasons) == (alone.tokens, alone.reasons)
        assert answer.usage is not None and answer.usage.drawn_tokens == len(alone.tokens[0])


@pytest.mark.parametrize("length", range(1, 9))
def test_no_more_is_drafted_than_an_answer_has_room_for(length: int) -> None:
    driver, oracle = drafting(longest=20)
    request = generate("a", PROMPT, max_new_tokens=length)
    assert run(driver, request).tokens == solo(request).tokens
    # The last token is drawn behind a drafted one at the most, and none is drafted in its place.
    assert oracle.drafted <= max(0, length - 2)


def test_what_came_of_an_answer_before_its_deadline_is_its_beginning() -> None:
    for steps in range(2, 7):
        oracle, clock = PagedOracle(64), Clock()
        driver = Driver(make_core(oracle, clock=clock, drafts=Foresight(oracle, right=9)))
        driver.add(generate("a", PROMPT, max_new_tokens=90, deadline=clock.now + 5))
        for _ in range(steps):
            driver.step()
        clock.now += 6
        answer = driver.run()["a"]
        alone = solo(generate("a", PROMPT, max_new_tokens=90)).tokens[0]
        assert answer.reasons == {0: FinishReason.DEADLINE}
        assert answer.tokens[0] == alone[: len(answer.tokens[0])] and len(answer.tokens[0]) >= steps
        assert driver.core.stats().free_blocks + driver.core.stats().cached_blocks == 64


def test_a_total_of_tokens_ends_a_request_at_the_same_token() -> None:
    for total in range(3, 40):
        driver, _ = drafting(right=9)
        request = generate("a", PROMPT, candidates=3, temperature=1.0, limits=RequestLimits(total_tokens=total))
        answer, alone = run(driver, request), solo(request)
        assert (answer.tokens, answer.reasons) == (alone.tokens, alone.reasons)
        assert answer.usage is not None and alone.usage is not None
        assert answer.usage.drawn_tokens == alone.usage.drawn_tokens


def test_nothing_is_drafted_where_something_waits_or_prompts_are_computed() -> None:
    driver, oracle = drafting(max_sequences=2, max_batch_tokens=16)
    driver.add(*(generate(str(i), [7, i, 9, 4], max_new_tokens=12) for i in range(6)))
    while driver.core.stats().waiting or driver.core.stats().running < 2:
        driver.step()
    assert oracle.drafted == 0
    driver.run()
    assert oracle.drafted > 0


def test_a_step_computes_no_more_tokens_than_its_budget() -> None:
    driver, oracle = drafting(max_sequences=8, max_batch_tokens=11, longest=20)
    driver.add(*(generate(str(i), [7, i], max_new_tokens=30) for i in range(8)))
    driver.run()
    assert oracle.drafted > 0 and max(oracle.batches) <= 11


def test_drafts_take_no_block_that_a_running_sequence_may_need() -> None:
    """Two answers that fill the cache exactly: with drafts nobody is preempted who was not without them."""
    driver, oracle = drafting(blocks=16, prefix_caching=False, longest=20)
    driver.add(*(generate(str(i), [7, i, 3, 4], max_new_tokens=28) for i in range(2)))
    driver.run()
    assert oracle.drafted > 0 and driver.core.stats().preemptions == 0


def in_rounds(draw: random.Random, request: Message) -> Message:
    """Some with a total of tokens, whose candidates then wait for one another."""
    if isinstance(request, ScoreRequest) or draw.random() < 0.5:
        return request
    return msgspec.structs.replace(request, limits=RequestLimits(total_tokens=draw.randint(12, 90)))


def run_workload(seed: int, blocks: int, rows: int, budget: int, reuse: bool, right: int) -> Driver:
    """Requests that come and go, some of which leave or are stopped by the server process in between."""
    draw = random.Random(seed)
    prefixes = [[], tokens(draw, 5, 13), tokens(draw, 8, 8)]
    requests = [in_rounds(draw, make_request(draw, index, prefixes)) for index in range(draw.randint(3, 14))]
    oracle = PagedOracle(blocks)
    options: dict[str, Any] = {"max_sequences": rows, "max_batch_tokens": budget, "prefix_caching": reuse}
    core = make_core(oracle, ALL, drafts=Foresight(oracle, seed, right), **options)
    driver = Driver(core)
    waiting, gone, stopped = list(requests), set[str](), set[str]()
    while waiting or core.has_work():
        while waiting and draw.random() < 0.3:
            driver.add(waiting.pop())
        if draw.random() < 0.06 and driver.answers:
            victim = draw.choice(sorted(driver.answers))
            if draw.random() < 0.5:
                gone.add(victim)
                core.abort(victim)
            else:
                stopped.add(victim)
                core.stop(victim, 0)
            core.check_integrity()
        driver.step()
        assert driver.steps < 20_000, "no progress"
    for request in requests:
        answer = driver.answers[request.request_id]
        if request.request_id in gone:
            continue
        alone = solo(request, ALL)
        if request.request_id not in stopped:
            assert answer.finished and same(answer, alone), request
            assert counts(answer) == counts(alone), request
        elif isinstance(request, GenerateRequest) and request.strategy == "sample":
            # What one of several does not take of their total is the others'.
            for candidate, got in answer.tokens.items():
                known = alone.tokens[candidate]
                shared = min(len(got), len(known))
                assert got[:shared] == known[:shared], request
    load = core.stats()
    assert (load.running, load.waiting) == (0, 0)
    assert load.free_blocks + load.cached_blocks == blocks, "blocks leak"
    return driver


def counts(answer: Answer) -> tuple[int, ...]:
    usage = answer.usage
    assert usage is not None
    return usage.prompt_tokens, usage.drawn_tokens, usage.forced_tokens, usage.sequences


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    blocks=st.sampled_from([9, 10, 13, 16, 24, 60, 400]),
    rows=st.sampled_from([1, 2, 5, 16]),
    budget=st.sampled_from([16, 24, 64]),
    reuse=st.booleans(),
    right=st.sampled_from([0, 5, 8, 10]),
)
def test_with_drafts_every_answer_equals_the_one_given_alone_without(
    seed: int, blocks: int, rows: int, budget: int, reuse: bool, right: int
) -> None:
    run_workload(seed, blocks, rows, budget, reuse, right)


@pytest.mark.parametrize("seed", range(3))
def test_workloads_under_pressure_do_preempt_and_do_draft(seed: int) -> None:
    stats = run_workload(seed, blocks=13, rows=16, budget=32, reuse=True, right=8).core.stats()
    assert stats.preemptions > 0 and stats.accepted_tokens > 0


def test_a_request_that_fails_in_the_middle_of_an_accepted_run_fails_alone() -> None:
    driver, oracle = drafting()
    driver.add(generate("a", PROMPT, max_new_tokens=30), generate("b", [9, 9], max_new_tokens=30))
    for _ in range(3):
        driver.step()
    oracle.fail_next = True
    answers = driver.run()
    for answer in answers.values():
        assert answer.failure is not None and answer.failure.kind is FailureKind.INTERNAL
    assert run(driver, generate("c", PROMPT)).tokens == solo(generate("c", PROMPT)).tokens


def test_what_a_strategy_changes_drops_the_draws_that_are_known_already() -> None:
    """``tree`` forks, forces, replaces and reheats by what was drawn; a draw that was known before would differ."""
    accepted = 0
    for seed in range(20):
        oracle = PagedOracle(300)
        driver = Driver(make_core(oracle, ALL, drafts=Foresight(oracle, seed, right=10)))
        request = generate("a", PROMPT, strategy="tree", temperature=1.0, seed=seed, max_new_tokens=14)
        answer, alone = run(driver, request), solo(request, ALL)
        assert same(answer, alone) and counts(answer) == counts(alone)
        accepted += 0 if answer.usage is None else answer.usage.accepted_tokens
    assert accepted > 0


@pytest.mark.parametrize("when", range(2, 14, 2))
def test_a_sequence_that_gives_its_row_to_others_draws_again_what_it_knew(when: int) -> None:
    """Candidates that wait for one another, each some draws ahead, when others come who want their rows."""
    for seed in range(25):
        oracle = PagedOracle(200)
        driver = Driver(make_core(oracle, drafts=Foresight(oracle, seed, right=9), max_sequences=3))
        total = RequestLimits(total_tokens=70)
        request = generate("a", PROMPT, candidates=3, temperature=1.0, seed=seed, max_new_tokens=24, limits=total)
        driver.add(request)
        for _ in range(when):
            driver.step()
        driver.add(*(generate(f"b{i}", [9, 9, i], max_new_tokens=9) for i in range(2)))
        assert same(driver.run()["a"], solo(request)), seed
