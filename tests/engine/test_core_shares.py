"""One caller cannot take all: shares of queue, rows and blocks, and how long anybody waits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.scheduling.fair_share import CREDIT, HEAD_START
from tests.support.engine_driver import Driver, generate, make_core, solo
from tests.support.paged_oracle import PagedOracle


def prompt(seed: int, length: int = 5) -> list[int]:
    return [(seed * 31 + k * k * 7) % 90 + 1 for k in range(length)]


def many(count: int, client: str, new_tokens: int, **options: int) -> list[GenerateRequest]:
    return [
        generate(f"{client}{i}", prompt(i), client=client, max_new_tokens=new_tokens, **options) for i in range(count)
    ]


def steps_to_finish(driver: Driver, request_id: str, limit: int) -> int:
    for step in range(limit):
        if driver.answers[request_id].finished:
            return step
        driver.step()
    raise AssertionError(f"{request_id} is not done after {limit} steps")


def same_as_alone(driver: Driver, *requests: GenerateRequest) -> bool:
    return all(driver.answers[request.request_id].tokens == solo(request).tokens for request in requests)


def test_a_full_queue_takes_whoever_has_few_in_it() -> None:
    driver = Driver(make_core(PagedOracle(64), max_waiting=20, max_sequences=2))
    crowd = many(500, "crowd", 4)
    driver.add(*crowd)
    driver.add(generate("few", prompt(7), client="few", max_new_tokens=2))
    steps_to_finish(driver, "few", 10)
    answers = driver.run()
    refused = [answer.failure for answer in answers.values() if answer.failure is not None]
    assert len(refused) == 480 and {failed.kind for failed in refused} == {FailureKind.OVERLOADED}
    assert all("20 requests of this caller" in failed.message and failed.retry_after > 0 for failed in refused)
    # Nobody who was taken is dropped, and the places are free again.
    assert answers["few"].failure is None and same_as_alone(driver, *crowd[:20])
    driver.add(*(generate(f"again{i}", prompt(i), client="crowd") for i in range(20)))
    assert all(answer.failure is None for name, answer in driver.run().items() if name.startswith("again"))


def test_places_come_back_however_a_request_ends() -> None:
    driver = Driver(make_core(PagedOracle(64), max_waiting=2, max_sequences=1))
    for turn in range(5):
        requests = [generate(f"{turn}/{i}", prompt(i)) for i in range(2)]
        driver.add(*requests, ScoreRequest(request_id=f"{turn}/nothing", token_ids=[1], continuations=[[]]))
        driver.core.abort(f"{turn}/0")
        driver.core.stop(f"{turn}/1", 0)
        driver.add(generate(f"{turn}/2", prompt(2), strategy="unknown"), generate(f"{turn}/3", prompt(3)))
        driver.answers[f"{turn}/0"].finished = driver.answers[f"{turn}/1"].finished = True
        driver.run()
        assert driver.answers[f"{turn}/3"].failure is None


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_long_answers_in_all_rows_keep_nobody_out(rows: int) -> None:
    driver = Driver(make_core(PagedOracle(1024), max_sequences=rows, max_batch_tokens=64))
    long = many(rows + 1, "long", 400)
    driver.add(*long)
    for _ in range(20):
        driver.step()
    assert driver.core.stats().running == rows, "who is alone may have everything"
    short = many(3, "short", 4)
    driver.add(*short)
    for request in short:
        steps_to_finish(driver, request.request_id, 390)
    assert not any(driver.answers[request.request_id].finished for request in long)
    driver.run()
    assert same_as_alone(driver, long[0], long[-1], *short)


def test_long_contexts_in_all_blocks_keep_nobody_out() -> None:
    driver = Driver(make_core(PagedOracle(40), max_sequences=32, max_batch_tokens=64))
    long = [generate(f"long{i}", prompt(i, 30), client="long", max_new_tokens=20) for i in range(12)]
    driver.add(*long)
    for _ in range(4):
        driver.step()
    short = generate("short", prompt(50, 30), client="short", max_new_tokens=3)
    driver.add(short)
    steps_to_finish(driver, "short", 6)
    assert not any(driver.answers[request.request_id].finished for request in long)
    driver.run()
    assert same_as_alone(driver, *long, short)


def test_candidates_of_one_request_count_like_requests() -> None:
    driver = Driver(make_core(PagedOracle(1024), max_sequences=8))
    driver.add(generate("wide", prompt(1), client="wide", candidates=8, temperature=1.0, max_new_tokens=200))
    for _ in range(5):
        driver.step()
    driver.add(generate("short", prompt(2), client="short", max_new_tokens=3))
    assert steps_to_finish(driver, "short", 6) < 6 and not driver.answers["wide"].finished
    driver.run()


def test_rows_are_shared_by_callers_not_by_requests() -> None:
    driver = Driver(make_core(PagedOracle(4096), max_sequences=9, max_batch_tokens=64))
    for client, count in (("a", 30), ("b", 20), ("c", 3)):
        driver.add(*many(count, client, 300))
    for _ in range(100):
        driver.step()
    generated = {
        client: sum(len(answer.tokens.get(0, [])) for name, answer in driver.answers.items() if name.startswith(client))
        for client in "abc"
    }
    assert min(generated.values()) > 0.8 * max(generated.values()), generated


def test_priority_on_everything_buys_no_share() -> None:
    driver = Driver(make_core(PagedOracle(4096), max_sequences=4, max_batch_tokens=64))
    driver.add(*many(30, "urgent", 40, priority=100), *many(30, "plain", 40, priority=0))
    for _ in range(200):
        driver.step()
    done = {c: sum(a.finished for name, a in driver.answers.items() if name.startswith(c)) for c in ("urgent", "plain")}
    assert abs(done["urgent"] - done["plain"]) <= 4 and done["plain"], done


def test_of_one_caller_a_level_of_priority_is_worth_a_bounded_age() -> None:
    driver = Driver(make_core(PagedOracle(64), max_sequences=1, max_waiting=1000))
    driver.add(generate("patient", prompt(1), priority=-1, max_new_tokens=2))
    number = 0
    while not driver.answers["patient"].finished:
        driver.add(generate(f"urgent{number}", prompt(number), priority=1, max_new_tokens=2))
        number += 1
        driver.step()
    overtook = sum(answer.finished for name, answer in driver.answers.items() if name != "patient")
    assert 1 < overtook <= 2 * HEAD_START
    driver.run()


@settings(max_examples=25, deadline=None)
@given(
    callers=st.integers(1, 5),
    rows=st.integers(1, 8),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    priorities=st.lists(st.integers(-2, 2), min_size=1, max_size=6),
    warm=st.integers(0, 40),
)
def test_nobody_waits_longer_than_the_bound_whatever_others_send(
    callers: int, rows: int, lengths: list[int], priorities: list[int], warm: int
) -> None:
    """Others always have requests waiting. Each may be ahead by the worth of its priority and by its last requests."""
    oracle = PagedOracle(2048)
    driver = Driver(make_core(oracle, max_sequences=rows, max_batch_tokens=16))
    sent, count = dict.fromkeys(range(callers), 0), 0
    longest = 5 + max(lengths)

    def flood() -> None:
        nonlocal count
        for caller in range(callers):
            open_requests = sum(not a.finished for name, a in driver.answers.items() if name.startswith(f"{caller}/"))
            for _ in range(rows + 2 - open_requests):
                name, count = f"{caller}/{sent[caller]}", count + 1
                sent[caller] += 1
                driver.add(
                    generate(
                        name,
                        prompt(count),
                        client=str(caller),
                        max_new_tokens=lengths[count % len(lengths)],
                        priority=priorities[count % len(priorities)],
                    )
                )

    for _ in range(warm):
        flood()
        driver.step()
    before = oracle.computed_tokens
    driver.add(generate("victim", prompt(0), client="victim", priority=-2, max_new_tokens=4))
    ahead = CREDIT * 4 + longest * (rows + 1)
    bound = callers * ahead + rows * longest
    while not driver.answers["victim"].finished:
        flood()
        driver.step()
        assert oracle.computed_tokens - before <= bound, "waited for longer than the bound"
    driver.run()
    assert all(answer.finished and answer.failure is None for answer in driver.answers.values())


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    blocks=st.integers(16, 40),
    requests=st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.integers(-100, 100),
            st.integers(1, 25),
            st.integers(1, 25),
            st.sampled_from([1, 1, 3]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=25,
    ),
)
def test_any_mix_of_callers_and_priorities_is_answered_in_full(
    rows: int, blocks: int, requests: list[tuple[str, int, int, int, int, int]]
) -> None:
    driver = Driver(make_core(PagedOracle(blocks), max_sequences=rows))
    sent = []
    for index, (client, priority, length, new_tokens, candidates, steps) in enumerate(requests):
        sent.append(
            generate(
                f"r{index}",
                prompt(index, length),
                client=client,
                priority=priority,
                max_new_tokens=new_tokens,
                candidates=candidates,
                temperature=1.0,
                seed=index,
            )
        )
        driver.add(sent[-1])
        for _ in range(steps):
            driver.step()
    driver.run()
    assert same_as_alone(driver, *sent)
