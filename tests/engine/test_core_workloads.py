"""Random workloads: whatever else is in the batch, every request is answered as if it were alone.

The oracle's answers depend on all it reads through the block tables, so these tests fail on any error in
block tables, copies, prefix reuse, preemption or order of computation.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.score import ScoreRequest
from tests.support.engine_driver import Answer, Driver, generate, make_core, solo
from tests.support.forking import Tree
from tests.support.paged_oracle import VOCABULARY, PagedOracle

ALL = {**STRATEGIES, "tree": Tree}
Message = GenerateRequest | ScoreRequest


def tokens(draw: random.Random, low: int, high: int) -> list[int]:
    return [draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high))]


def make_request(draw: random.Random, index: int, prefixes: list[list[int]]) -> Message:
    prompt = draw.choice(prefixes) + tokens(draw, 1, 9)
    name, priority, client = f"request-{index}", draw.randrange(3), f"client-{draw.randrange(3)}"
    if draw.random() < 0.25:
        continuations = [tokens(draw, 0, 9) for _ in range(draw.randint(1, 12))]
        return ScoreRequest(
            request_id=name, token_ids=prompt, continuations=continuations, priority=priority, client=client
        )
    return generate(
        name,
        prompt,
        candidates=draw.choice([1, 1, 1, 3, 12]),
        temperature=draw.choice([0.0, 1.0]),
        max_new_tokens=draw.randint(1, 14),
        ignore_eos=draw.random() < 0.5,
        stop_ids=[7] if draw.random() < 0.3 else [],
        strategy=draw.choice(["sample", "sample", "tree"]),
        priority=priority,
        client=client,
        seed=index,
        segment_ids=bytes(len(prompt)) if draw.random() < 0.5 else bytes(draw.choices(range(4), k=len(prompt))),
    )


def same(got: Answer, alone: Answer) -> bool:
    score = (got.score and got.score.scores) == (alone.score and alone.score.scores)
    return score and (got.tokens, got.reasons, got.failure) == (alone.tokens, alone.reasons, None)


def run_workload(seed: int, blocks: int, rows: int, budget: int, reuse: bool) -> Driver:
    draw = random.Random(seed)
    prefixes = [[], tokens(draw, 5, 13), tokens(draw, 8, 8)]
    requests = [make_request(draw, index, prefixes) for index in range(draw.randint(4, 24))]
    core = make_core(PagedOracle(blocks), ALL, max_sequences=rows, max_batch_tokens=budget, prefix_caching=reuse)
    driver = Driver(core)
    waiting, gone = list(requests), set[str]()
    while waiting or core.has_work():
        while waiting and draw.random() < 0.6:
            driver.add(waiting.pop())
        if draw.random() < 0.05 and driver.answers:
            victim = draw.choice(sorted(driver.answers))
            gone.add(victim)
            core.abort(victim)
            core.check_integrity()
        driver.step()
        assert driver.steps < 20_000, "no progress"
    for request in requests:
        answer = driver.answers[request.request_id]
        if request.request_id not in gone:
            assert answer.finished
            assert same(answer, solo(request, ALL)), request
    load = core.stats()
    assert (load.running, load.waiting) == (0, 0)
    assert load.free_blocks + load.cached_blocks == blocks, "blocks leak"
    return driver


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    blocks=st.sampled_from([9, 10, 13, 16, 24, 60, 400]),
    rows=st.sampled_from([1, 2, 5, 16]),
    budget=st.sampled_from([16, 24, 64]),
    reuse=st.booleans(),
)
def test_every_answer_equals_the_one_given_alone(seed: int, blocks: int, rows: int, budget: int, reuse: bool) -> None:
    run_workload(seed, blocks, rows, budget, reuse)


@pytest.mark.parametrize("seed", range(3))
def test_workloads_under_pressure_do_preempt(seed: int) -> None:
    driver = run_workload(seed, blocks=9, rows=16, budget=16, reuse=True)
    assert driver.core.stats().preemptions > 0
