"""Scoring: every target is predicted from the position before it, and contexts are computed once."""

from __future__ import annotations

import pytest

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreRequest
from tests.support.engine_driver import Driver, generate, make_core, solo
from tests.support.paged_oracle import PagedOracle

CONTEXT = [5, 17, 3, 44, 9, 61, 2, 8, 33, 70]


def score(name: str, context: list[int], *continuations: list[int]) -> ScoreRequest:
    return ScoreRequest(request_id=name, token_ids=context, continuations=list(continuations))


def log_probs(driver: Driver, name: str) -> list[list[float]]:
    answer = driver.run()[name]
    assert answer.score is not None, answer.failure
    return [entry.token_log_probs for entry in answer.score.scores]


def test_a_greedy_continuation_is_recognised() -> None:
    greedy = solo(generate("a", CONTEXT, max_new_tokens=4)).tokens[0]
    scores = solo(score("s", CONTEXT, greedy, [*greedy[:3], greedy[3] + 1], greedy[:2])).score
    assert scores is not None
    assert [entry.is_greedy for entry in scores.scores] == [True, False, True]


def test_scores_do_not_depend_on_how_the_text_is_divided() -> None:
    whole = solo(score("a", CONTEXT[:1], CONTEXT[1:])).score
    part = solo(score("b", CONTEXT[:6], CONTEXT[6:])).score
    assert whole is not None and part is not None
    assert whole.scores[0].token_log_probs[5:] == part.scores[0].token_log_probs
    assert part.scores[0].log_prob == pytest.approx(sum(part.scores[0].token_log_probs))


def test_the_shared_context_is_computed_once() -> None:
    oracle = PagedOracle(64)
    driver = Driver(make_core(oracle, prefix_caching=False))
    driver.add(score("s", CONTEXT, [1, 2, 3], [4], [5, 6]))
    assert [len(values) for values in log_probs(driver, "s")] == [3, 1, 2]
    assert oracle.computed_tokens == len(CONTEXT) - 1 + 3 + 1 + 2


def test_an_empty_continuation_is_certain() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    driver.add(score("s", CONTEXT, [], [3]), score("none", CONTEXT, []))
    assert log_probs(driver, "s")[0] == []
    answer = driver.answers["none"].score
    assert answer is not None and answer.scores[0].is_greedy and answer.scores[0].log_prob == 0.0


@pytest.mark.parametrize("reuse", [True, False])
def test_continuations_longer_than_the_budget_are_scored_in_chunks(reuse: bool) -> None:
    long = [(k * k) % 90 for k in range(70)]
    driver = Driver(make_core(PagedOracle(64), max_batch_tokens=16, prefix_caching=reuse))
    driver.add(score("s", CONTEXT, long, long[:20]))
    assert log_probs(driver, "s")[0] == solo(score("s", CONTEXT, long)).score.scores[0].token_log_probs  # type: ignore[union-attr]


def test_a_cached_context_still_yields_the_first_targets_log_prob() -> None:
    driver = Driver(make_core(PagedOracle(64)))
    driver.add(generate("warm", CONTEXT[:9]))
    driver.run()
    for length in (8, 9, 10):
        driver.add(score(f"s{length}", CONTEXT[:length], [1, 2]))
        expected = solo(score("x", CONTEXT[:length], [1, 2])).score
        assert expected is not None
        assert log_probs(driver, f"s{length}")[0] == expected.scores[0].token_log_probs


def test_more_continuations_than_rows_and_few_blocks() -> None:
    request = score("s", CONTEXT, *[[k, k + 1, k + 2, k + 3] for k in range(40)])
    driver = Driver(make_core(PagedOracle(6), max_sequences=3))
    driver.add(request)
    assert log_probs(driver, "s") == [
        entry.token_log_probs
        for entry in solo(request).score.scores  # type: ignore[union-attr]
    ]


def test_scores_lost_half_way_are_not_computed_twice() -> None:
    long = [(k * k) % 90 for k in range(40)]
    driver = Driver(make_core(PagedOracle(64), max_batch_tokens=16, max_sequences=1))
    driver.add(score("s", CONTEXT, long))
    for _ in range(3):
        driver.step()
    driver.add(generate("urgent", [9, 9, 9], priority=1))
    assert log_probs(driver, "s")[0] == solo(score("s", CONTEXT, long)).score.scores[0].token_log_probs  # type: ignore[union-attr]
    assert driver.core.stats().preemptions == 1


def test_an_expired_score_request_fails() -> None:
    driver = Driver(make_core(PagedOracle(64), clock=lambda: 5.0))
    driver.add(ScoreRequest(request_id="s", token_ids=[1], continuations=[[2]], deadline=4.0))
    failure = driver.run()["s"].failure
    assert failure is not None and failure.kind is FailureKind.DEADLINE
