"""What holds for every strategy: its order, its endings, its limits, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.core.strategy import Branch, Control, LimitError, Strategy
from ift_serve.engine.protocol.generate import Conclusion, GenerateRequest
from ift_serve.engine.protocol.reasoning import RequestLimits
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.sequences.step import SampledToken
from tests.support.engine_driver import Answer, Clock, Driver, generate, make_core, solo
from tests.support.paged_oracle import PagedOracle

PROMPT = [5, 17, 3, 44, 9, 61, 2, 8, 33]


class FirstDone(Strategy):
    """Hidden branches; the first that is told to have ended is the answer, and the others end."""

    streams = False
    records = True

    def __init__(self, request: GenerateRequest) -> None:
        self.width = request.sampling.candidates
        self.told: list[tuple[int, int]] = []
        self.ends: list[FinishReason] = []
        self.done: list[Branch] = []

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        self.told.append((branch.ordinal, token.token_id))
        # A vote on what was told last: it depends on the order.
        if len(self.told) % 7 == 3 and len(control.live) < 6 and control.room(branch):
            control.fork(branch)

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        self.ends.append(reason)
        self.done.append(branch)
        if len(self.done) == 2:
            control.reveal(self.done[self.told[-1][1] % 2], 0)
            control.report(Conclusion(mode="first", confidence=0.5))
            control.finish()

    def conclude(self, control: Control, reason: FinishReason) -> None:
        self.ends.append(reason)
        if self.done:
            control.reveal(self.done[0], 0)


def core_of(factory: Callable[[GenerateRequest], Strategy], blocks: int = 64, rows: int = 8, **config: Any) -> Driver:
    return Driver(
        make_core(PagedOracle(blocks), {**STRATEGIES, "doing": factory}, max_sequences=rows, **config),
    )


def unused(driver: Driver) -> int:
    """Blocks that no sequence holds."""
    stats = driver.core.stats()
    return stats.free_blocks + stats.cached_blocks


def request(request_id: str = "a", **options: Any) -> GenerateRequest:
    settings_ = {"strategy": "doing", "candidates": 3, "temperature": 1.0, "max_new_tokens": 12, "ignore_eos": False}
    return generate(request_id, PROMPT, **(settings_ | options))


def kept(made: list[Strategy], factory: Callable[[GenerateRequest], Strategy]) -> Callable[[GenerateRequest], Strategy]:
    """A factory that also tells the test what it made."""

    def make(message: GenerateRequest) -> Strategy:
        made.append(factory(message))
        return made[-1]

    return make


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 8), blocks=st.sampled_from([14, 24, 64]),
    budget=st.sampled_from([8, 16, 32]), company=st.integers(0, 4),
)  # fmt: skip
def test_the_order_depends_on_the_request_alone(seed: int, rows: int, blocks: int, budget: int, company: int) -> None:
    def told(rows: int, blocks: int, budget: int, company: int) -> tuple[Any, Answer]:
        made: list[Strategy] = []
        driver = core_of(kept(made, FirstDone), blocks, rows, max_batch_tokens=budget)
        for number in range(company):
            driver.add(generate(f"other {number}", PROMPT[number:], candidates=2, temperature=1.0, max_new_tokens=9))
        driver.add(request(seed=seed))
        answer = driver.run()["a"]
        strategy = made[-1]
        assert isinstance(strategy, FirstDone)
        return (strategy.told, strategy.ends), answer

    there, answer = told(rows, blocks, budget, company)
    alone, expected = told(8, 400, 400, 0)
    assert there == alone
    assert (answer.tokens, answer.reasons) == (expected.tokens, expected.reasons)


def test_the_deadline_reaches_the_strategy_which_concludes_with_what_it_has() -> None:
    clock = Clock()
    made: list[Strategy] = []
    driver = Driver(make_core(PagedOracle(64), {"doing": kept(made, FirstDone)}, clock))
    first = solo(request(candidates=1, strategy="sample")).tokens[0]
    driver.add(request(stop_ids=[first[4]], ignore_eos=True, max_new_tokens=60, deadline=clock.now + 5))
    while not (made and made[0].ends):  # type: ignore[attr-defined]
        driver.step()
    clock.now += 6
    answer = driver.run()["a"]
    assert answer.finished and answer.failure is None
    assert answer.tokens[0][-1] == first[4]
    assert made[0].ends[-1] is FinishReason.DEADLINE  # type: ignore[attr-defined]
    assert unused(driver) == 64


def test_a_caller_who_leaves_is_told_to_the_strategy_and_frees_everything() -> None:
    made: list[Strategy] = []
    driver = core_of(kept(made, FirstDone))
    driver.add(request(max_new_tokens=60, ignore_eos=True))
    for _ in range(5):
        driver.step()
    driver.core.abort("a")
    driver.run()
    assert made[0].ends == [FinishReason.CANCELLED]  # type: ignore[attr-defined]
    assert driver.answers["a"].tokens == {}
    assert unused(driver) == 64


def test_a_stop_string_that_the_front_found_is_an_end_like_others() -> None:
    class Streams(FirstDone):
        streams = True

        def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
            self.ends.append(reason)

    made: list[Strategy] = []
    driver = core_of(kept(made, Streams))
    driver.add(request(ignore_eos=True, max_new_tokens=30))
    for _ in range(5):
        driver.step()
    driver.core.stop("a", 1)
    driver.run()
    assert made[0].ends[0] is FinishReason.STOP  # type: ignore[attr-defined]
    assert set(driver.answers["a"].reasons) == {0, 2}


def test_a_stop_that_completes_a_round_sends_what_the_round_ends() -> None:
    class Asks(Strategy):
        """A long question to a fork of the first candidate has the others wait."""

        records = True
        width = 2
        question: Branch

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            if branch.ordinal == 0 and branch.generated_count == 1:
                self.question = control.fork(branch)
                control.force(self.question, [7] * 40)
            elif branch.ordinal == 1 and branch.generated_count == 2:
                control.stop(branch)

        def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
            control.stop(self.question)

    driver = core_of(lambda _: Asks(), max_batch_tokens=8)
    driver.add(request(candidates=2, ignore_eos=True, max_new_tokens=44))
    while len(driver.answers["a"].tokens) < 2:
        driver.step()
    driver.step()
    driver.core.stop("a", 0)
    answer = driver.run()["a"]
    assert answer.finished and answer.reasons == {1: FinishReason.STOP} and len(answer.tokens[1]) == 2
    assert unused(driver) == 64


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (RequestLimits(sequences=5), "sequences"),
        (RequestLimits(forks=7), "forks"),
        (RequestLimits(total_tokens=40), "total_tokens"),
    ],
)
def test_forks_are_bounded(limits: RequestLimits, name: str) -> None:
    hit: list[str] = []

    class Greedy(Strategy):
        records = True

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            try:
                control.fork(branch)
            except LimitError as error:
                hit.append(error.limit)
                raise

    driver = core_of(lambda message: Greedy())
    driver.add(request(limits=limits, max_new_tokens=200, ignore_eos=True))
    answer = driver.run()["a"]
    assert answer.finished and answer.failure is None and answer.usage is not None
    assert answer.reasons[0] is FinishReason.LENGTH
    assert hit in ([name], []), hit
    assert answer.usage.sequences <= 32 and answer.usage.drawn_tokens <= 40
    assert unused(driver) == 64


def test_a_branch_at_its_length_cannot_be_forked_beyond_it() -> None:
    refused: list[str] = []

    class Again(Strategy):
        records = True

        def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
            with pytest.raises(LimitError) as error:
                control.fork(branch, replace_last=3)
            refused.append(error.value.limit)

    driver = core_of(lambda message: Again())
    driver.add(request(max_new_tokens=6, ignore_eos=True))
    assert len(driver.run()["a"].tokens[0]) == 6
    assert refused == ["length"]


def test_a_strategy_wider_than_its_limits_is_refused_by_name() -> None:
    driver = core_of(FirstDone)
    driver.add(request(candidates=9, limits=RequestLimits(sequences=8)))
    failure = driver.run()["a"].failure
    assert failure is not None and (failure.kind, failure.field) == (FailureKind.INVALID, "limits.sequences")


@pytest.mark.parametrize("candidate", [-2, 2, 99])
def test_a_candidate_that_nobody_asked_for_fails_its_request_alone(candidate: int) -> None:
    class Wrong(Strategy):
        records = True

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            control.fork(branch, candidate=candidate)

    driver = core_of(lambda message: Wrong())
    driver.add(request(candidates=2), generate("b", PROMPT))
    driver.run()
    failure = driver.answers["a"].failure
    assert failure is not None and failure.kind is FailureKind.INTERNAL
    assert driver.answers["b"].tokens == solo(generate("b", PROMPT)).tokens


def test_two_sequences_are_never_one_candidate() -> None:
    class Twice(Strategy):
        records = True

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            with pytest.raises(ValueError, match="another sequence's"):
                control.fork(branch, candidate=0)

    driver = core_of(lambda message: Twice())
    driver.add(request())
    assert driver.run()["a"].failure is None


def test_alternatives_are_there_because_the_strategy_needs_them_and_are_not_sent() -> None:
    seen: list[int] = []

    class Looks(Strategy):
        alternatives = 5

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            seen.append(len(token.top_log_probs))

    driver = core_of(lambda message: Looks())
    driver.add(request(top_logprobs=2))
    answer = driver.run()["a"]
    assert set(seen) == {5}
    assert {len(entry) for output in answer.outputs for entry in output.top_log_probs} == {2}


def test_a_thought_has_room_of_its_own() -> None:
    class Thinks(Strategy):
        extra_tokens = 10

    driver = core_of(lambda message: Thinks())
    driver.add(request(max_new_tokens=6, ignore_eos=True))
    assert len(driver.run()["a"].tokens[0]) == 16


def test_a_thought_that_cannot_fit_is_refused_by_name() -> None:
    class Thinks(Strategy):
        extra_tokens = 4000

    driver = core_of(lambda message: Thinks(), blocks=16)
    driver.add(request(max_new_tokens=6))
    failure = driver.run()["a"].failure
    assert failure is not None and (failure.kind, failure.field) == (FailureKind.INVALID, "reasoning")


def test_usage_counts_what_nobody_was_sent_and_forced_tokens_are_marked() -> None:
    class Forces(FirstDone):
        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            if branch.ordinal == 0 and branch.generated_count == 2:
                control.force(branch, [7, 7, 7])

        def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
            if not control.live:
                control.reveal(branch, 0)

    driver = core_of(Forces)
    driver.add(request(ignore_eos=True, max_new_tokens=8))
    usage = driver.run()["a"].usage
    assert usage is not None
    assert (usage.drawn_tokens, usage.forced_tokens, usage.sequences) == (5 + 8 + 8, 3, 3)

    class Shown(Forces):
        streams = True

        def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
            """Nothing."""

    driver = core_of(Shown)
    driver.add(request(ignore_eos=True, max_new_tokens=8))
    outputs = [o for o in driver.run()["a"].outputs if o.candidate == 0]
    forced = [statistics.forced for output in outputs for statistics in output.statistics]
    assert forced == [False] * 2 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_scores_are_those_of_a_score_request(count: int) -> None:
    trial = [11, 12, 13, 14, 15][:count]
    found: list[tuple[list[int], list[float]]] = []

    class Tries(Strategy):
        records = True

        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            if branch.generated_count in (2, 3):
                control.score(branch, trial)

        def on_score(self, control: Control, branch: Branch, log_probs: list[float]) -> None:
            found.append((branch.generated, log_probs))

    driver = core_of(lambda message: Tries())
    driver.add(request(ignore_eos=True, candidates=1))
    answer = driver.run()["a"]
    assert [tokens for tokens, _ in found] == [[*answer.tokens[0][:n], *trial] for n in (2, 3)]
    for tokens, log_probs in found:
        score = ScoreRequest(request_id="s", token_ids=[*PROMPT, *tokens[:-count]], continuations=[trial])
        expected = solo(score).score
        assert expected is not None and expected.scores[0].token_log_probs == log_probs
    assert answer.tokens == solo(request(ignore_eos=True, candidates=1, strategy="sample")).tokens


def test_what_a_strategy_concluded_comes_with_the_last_output() -> None:
    driver = core_of(FirstDone)
    driver.add(request())
    outputs = driver.run()["a"].outputs
    assert outputs[-1].conclusion == Conclusion(mode="first", confidence=0.5)
    assert all(output.conclusion is None for output in outputs[:-1])
