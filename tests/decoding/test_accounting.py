"""What a request took: draws and placed tokens against a count of one's own, limits of the total included."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.core.strategy import Branch, Control, LimitError, Strategy
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.reasoning import RequestLimits
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.step import SampledToken, SamplingRow, SequenceStep
from tests.support.engine_driver import Answer, Driver, generate, make_core
from tests.support.paged_oracle import PagedOracle

PROMPT = [5, 17, 3, 44, 9, 61, 2, 8, 33]


class CountingOracle(PagedOracle):
    """Counts the draws that it makes."""

    draws = 0

    def _sample(self, step: SequenceStep, row: SamplingRow, total: int) -> SampledToken:
        self.draws += 1
        return super()._sample(step, row, total)


class Busy(Strategy):
    """Does whatever a token tells it to; keeps an account of its own."""

    records = True
    alternatives = 4

    def __init__(self, request: GenerateRequest) -> None:
        self.width = request.sampling.candidates
        self.branches: dict[int, tuple[Branch, int]] = {}
        """Every sequence, with how many of its tokens are another one's."""
        self.told = self.taken_back = self.placed = self.scored = 0

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        self.told += 1
        self.branches.setdefault(branch.ordinal, (branch, 0))
        choice = (token.token_id + 3 * branch.generated_count + branch.ordinal) % 11
        try:
            self._do(control, branch, token, choice)
        except LimitError as error:
            if error.limit == "total_tokens":
                raise

    def _do(self, control: Control, branch: Branch, token: SampledToken, choice: int) -> None:
        shared = branch.generated_count
        if choice == 0:
            self._note(control.fork(branch), shared)
        elif choice == 1:
            self._note(control.fork(branch, replace_last=token.top_log_probs[2][0]), shared - 1)
            self.placed += 1
        elif choice == 2:
            self._note(control.fork(branch, keep=shared // 2), shared // 2)
        elif choice == 3:
            control.force(branch, [7, 8, 9])
            self.placed += 3
        elif choice == 4:
            control.force(branch, [7, 8], replace_last=True)
            self.placed, self.taken_back = self.placed + 2, self.taken_back + 1
        elif choice == 5:
            control.score(branch, [4, 5])
            self.scored += 2
        elif choice == 6 and len(control.live) > 1:
            control.stop(branch)

    def _note(self, branch: Branch, shared: int) -> None:
        self.branches[branch.ordinal] = (branch, shared)

    @property
    def own_tokens(self) -> int:
        """Tokens of all sequences, those that several share once."""
        return sum(branch.generated_count - shared for branch, shared in self.branches.values())


def _run(request: GenerateRequest, rows: int, blocks: int, company: int) -> tuple[Answer, Busy, int]:
    made: list[Busy] = []

    def make(message: GenerateRequest) -> Strategy:
        made.append(Busy(message))
        return made[-1]

    oracle = CountingOracle(blocks)
    driver = Driver(make_core(oracle, {**STRATEGIES, "busy": make}, max_sequences=rows))
    others = [generate(f"other {i}", [9, 9, i + 1], temperature=1.0, max_new_tokens=20) for i in range(company)]
    driver.add(request, *others)
    answers = driver.run()
    return answers[request.request_id], made[0], oracle.draws - 20 * company


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.integers(1, 8), blocks=st.integers(40, 90), company=st.integers(0, 3),
    total=st.integers(3, 200), candidates=st.integers(1, 3),
)  # fmt: skip
def test_usage_is_exact(seed: int, rows: int, blocks: int, company: int, total: int, candidates: int) -> None:
    """Every draw counts once, every placed token once; together they are the tree of sequences, what was taken back,
    what was scored, and draws that nobody was told of because a sibling's ended the request first."""
    limits = RequestLimits(sequences=12, forks=20, total_tokens=total)
    options = {"strategy": "busy", "temperature": 1.0, "max_new_tokens": 14, "candidates": candidates}
    asked = generate("a", PROMPT, seed=seed, limits=limits, **options)
    answer, busy, draws = _run(asked, rows, blocks, company)
    assert answer.failure is None, answer.failure
    usage = answer.usage
    assert usage is not None
    assert usage.drawn_tokens == draws
    assert usage.forced_tokens == busy.placed + busy.scored
    untold = usage.drawn_tokens - busy.told
    assert 0 <= untold <= limits.sequences
    assert busy.own_tokens == busy.told - busy.taken_back + busy.placed
    assert usage.drawn_tokens + usage.forced_tokens <= total


class Passive(Strategy):
    """As another package may register one: it lets its sequences run."""

    passive = True

    def __init__(self, request: GenerateRequest) -> None:
        self.width = request.sampling.candidates

    def on_token(self, *_: Any) -> None:
        raise AssertionError("a passive strategy is never called")

    on_end = conclude = on_token  # type: ignore[assignment]


def _passive(total: int, rows: int = 8, candidates: int = 3, **options: Any) -> Answer:
    driver = Driver(make_core(PagedOracle(64), {**STRATEGIES, "passive": Passive}, max_sequences=rows))
    limits = RequestLimits(total_tokens=total)
    settings_ = {"temperature": 1.0, "max_new_tokens": 12, "strategy": "passive", "candidates": candidates} | options
    driver.add(generate("a", PROMPT, limits=limits, **settings_))
    return driver.run()["a"]


@pytest.mark.parametrize("total", [3, 4, 10, 35, 36, 37])
def test_a_passive_strategy_is_held_to_the_total_whatever_the_load(total: int) -> None:
    answers = [_passive(total, rows) for rows in (8, 2, 1)]
    usages = [answer.usage for answer in answers]
    assert all(usage is not None and usage.drawn_tokens == min(total // 3 * 3, 36) for usage in usages)
    assert answers[0].tokens == answers[1].tokens == answers[2].tokens
    assert set(answers[0].reasons.values()) == {FinishReason.LENGTH}
    free = _passive(1000)
    for candidate, tokens in answers[0].tokens.items():
        assert tokens == free.tokens[candidate][: len(tokens)]


def test_a_passive_strategy_that_ends_by_itself_leaves_the_rest_to_its_siblings() -> None:
    free = _passive(1000, ignore_eos=False, seed=5, max_new_tokens=60)
    lengths = sorted(len(tokens) for tokens in free.tokens.values())
    assert lengths[0] < lengths[-1], "one has to end before the others for this to show anything"
    held = _passive(sum(lengths), ignore_eos=False, seed=5, max_new_tokens=60)
    assert held.tokens == free.tokens and held.reasons == free.reasons


def test_fewer_tokens_than_sequences_are_refused_by_name() -> None:
    failure = _passive(2).failure
    assert failure is not None
    assert (failure.kind, failure.field) == (FailureKind.INVALID, "reasoning.max_total_tokens")
