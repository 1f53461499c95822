"""Votes over a scripted model: who wins, when it is over, what is spared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.decoding.beta_posterior import leader_probability
from ift_serve.engine.protocol.generate import Conclusion
from ift_serve.engine.protocol.reasoning import (
    AnswerKind,
    AnswerSpan,
    LowConfidence,
    RequestLimits,
    Trace,
    Vote,
    VoteStop,
    VoteWeight,
)
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.step import SamplingRow
from tests.support.engine_driver import Answer, Clock
from tests.support.scripted_model import Next, Script, driver_of, reasoned, text_of, unused_blocks, write


class Says:
    """The n-th sample, in order of their beginning, says the n-th text; after the last one, the last."""

    def __init__(self, texts: list[str], confidences: list[float] | None = None) -> None:
        self.texts = texts
        self.confidences = confidences or [8.0] * len(texts)
        self.order: list[int] = []

    def __call__(self, text: str, row: SamplingRow) -> Next:
        if row.seed not in self.order:
            self.order.append(row.seed)
        place = min(self.order.index(row.seed), len(self.texts) - 1)
        return Next([self.texts[place][len(text) :]], confidence=self.confidences[place])


def by_seed(texts: list[str]) -> Script:
    """A text for every seed, whenever it is asked for."""
    return lambda text, row: Next([texts[row.seed % len(texts)][len(text) :]], confidence=2 + row.seed % 11)


def run(script: Script, settings_: Vote, **options: Any) -> tuple[Answer, Conclusion]:
    driver = driver_of(script)
    driver.add(reasoned(settings_, **({"temperature": 1.0} | options)))
    answer = driver.run()["a"]
    assert answer.failure is None, answer.failure
    assert unused_blocks(driver) == 256
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None
    return answer, conclusion


def shown(answer: Answer) -> str:
    return text_of(answer.tokens[0]).removesuffix("</s>")


def test_the_majority_wins_and_its_surest_sample_is_given() -> None:
    texts = ["so 5", "it is 8", "8.0 dogs", "9"]
    answer, conclusion = run(Says(texts, [8, 3, 6, 20]), Vote(samples=4, stop="all"))
    assert shown(answer) == "8.0 dogs" and answer.reasons == {0: FinishReason.EOS}
    assert (conclusion.mode, conclusion.answer, conclusion.confidence) == ("vote", "8.0", 0.5)
    assert [branch.votes for branch in conclusion.branches] == [1.0] * 4
    assert [branch.confidence for branch in conclusion.branches] == [8, 3, 6, 20]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), stop=st.sampled_from(["settled", "posterior"]), most=st.integers(1, 9))
def test_what_an_early_stop_draws_is_what_the_full_vote_draws_first(seed: int, stop: VoteStop, most: int) -> None:
    """A sample is a function of the request and its place alone, however many run at once."""
    texts = ["8", "8 it is", "8.0", "5", "so 8", "maybe 9", "8 dogs"]
    _, full = run(by_seed(texts), Vote(samples=9, stop="all"), seed=seed)
    _, early = run(by_seed(texts), Vote(samples=9, stop=stop), seed=seed, limits=RequestLimits(sequences=most))
    found = [(one.answer, one.confidence, one.tokens) for one in early.branches if one.ended is FinishReason.EOS]
    assert found == [(one.answer, one.confidence, one.tokens) for one in full.branches[: len(found)]]


def test_borda_and_confidence_weigh_votes() -> None:
    texts, confidences = ["5", "8", "8", "5", "8"], [9.0, 2.0, 3.0, 8.0, 1.0]
    _, majority = run(Says(texts, confidences), Vote(samples=5, stop="all"))
    _, borda = run(Says(texts, confidences), Vote(samples=5, stop="all", weight="borda", power=1.0))
    _, weighted = run(Says(texts, confidences), Vote(samples=5, stop="all", weight="confidence"))
    assert (majority.answer, borda.answer, weighted.answer) == ("8", "5", "5")
    assert [branch.votes for branch in borda.branches] == [5, 2, 3, 4, 1]
    assert weighted.confidence == pytest.approx(17 / 23)


@pytest.mark.parametrize(
    ("texts", "samples", "stop", "drawn"),
    [
        # Four that agree give .969; two to two, then 8 to 2 are needed (.967), or all that there are.
        (["8"], 32, "posterior", 4),
        (["8", "8", "5", "8"], 32, "posterior", 7),
        (["5", "8"] * 16, 12, "posterior", 12),
        (["8"], 9, "settled", 5),
        (["8", "5", "8", "5", "8"], 9, "settled", 7),
        (["8"], 9, "all", 9),
    ],
)
def test_a_vote_draws_no_more_samples_than_it_needs(texts: list[str], samples: int, stop: VoteStop, drawn: int) -> None:
    answer, conclusion = run(Says(texts), Vote(samples=samples, stop=stop), limits=RequestLimits(sequences=64))
    assert len(conclusion.branches) == drawn
    assert answer.usage is not None and answer.usage.sequences == drawn
    if stop == "posterior" and drawn < samples:
        votes = sorted((sum(b.answer == a for b in conclusion.branches) for a in ("5", "8")), reverse=True)
        assert leader_probability(*votes) >= 0.95
        assert leader_probability(votes[0] - 1, votes[1]) < 0.95


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_vote_goes_on_with_as_many_at_once_as_there_may_be(most: int) -> None:
    texts = ["8 dogs", "5", "8", "8 is it", "5", "5 of", "8", "8", "9"]
    limits = RequestLimits(sequences=most)
    answer, conclusion = run(Says(texts), Vote(samples=9, stop="all"), limits=limits)
    assert len(conclusion.branches) == 9 and conclusion.answer == "8"
    assert answer.usage is not None and answer.usage.sequences == 9


def test_a_vote_ends_with_what_there_is_where_no_more_may_be_forked() -> None:
    limits = RequestLimits(sequences=2, forks=3)
    _, conclusion = run(Says(["8", "5", "8", "5", "8"]), Vote(samples=9, stop="all"), limits=limits)
    assert len(conclusion.branches) == 5 and conclusion.answer == "8"


def test_siblings_end_where_the_vote_is_over() -> None:
    long = "8 " * 60
    _, conclusion = run(Says(["8", "8", "8", "8", "8", long]), Vote(samples=10, stop="settled"))
    assert conclusion.answer == "8" and len(conclusion.branches) == 6
    script = Says(["8", "8", "8", "8", long + "8", "5", long])
    _, conclusion = run(script, Vote(samples=7, stop="settled"))
    assert conclusion.branches[-1].tokens < 60


def test_samples_without_an_answer_do_not_vote() -> None:
    _, conclusion = run(Says(["none", "none", "8"]), Vote(samples=3, stop="all"))
    assert conclusion.answer == "8" and conclusion.confidence == 1.0
    _, nothing = run(Says(["none"]), Vote(samples=3))
    assert nothing.answer == "" and nothing.confidence == 0.0 and len(nothing.branches) == 3


def test_a_sample_whose_confidence_falls_ends_without_a_vote() -> None:
    """The warm-up's lowest windows are 6 and 8; the percentile that keeps nine tenths is 6.2."""
    words = "one two three four five six 9"
    texts = ["a dog is a dog is 8", "the fox is the fox is 8", words, "a dog is a fox is 8"]
    low = LowConfidence(warm_up=2, keep=0.9, window=3)
    answer, conclusion = run(Says(texts, [6.0, 8.0, 5.0, 7.0]), Vote(samples=4, stop="all", low_confidence=low))
    first, second, third, fourth = conclusion.branches
    assert [b.answer for b in (first, second, third, fourth)] == ["8", "8", "", "8"]
    assert third.tokens == 3 and third.ended is FinishReason.STOP and fourth.tokens > 3
    assert conclusion.confidence == 1.0 and answer.usage is not None and answer.usage.sequences == 4


def test_samples_may_think_first_and_thoughts_have_no_vote() -> None:
    answer, conclusion = run(write(["<think>5 or 9</think>8"]), Vote(samples=4, trace=Trace(budget=40)))
    assert [branch.answer for branch in conclusion.branches] == ["8"] * 4
    assert shown(answer).startswith("<think>") and shown(answer).endswith("</think>8")


def test_a_thought_that_is_cut_is_no_answer() -> None:
    long = "<think>" + "5 is " * 40
    answer, conclusion = run(
        write([long]),
        Vote(samples=3, stop="all", trace=Trace(budget=500)),
        limits=RequestLimits(total_tokens=90),
    )
    assert conclusion.answer == "" and answer.reasons == {0: FinishReason.LENGTH}


def test_a_deadline_counts_the_votes_that_there_are() -> None:
    clock = Clock()
    driver = driver_of(Says(["8", "8", "5 " * 100]), clock=clock)
    driver.add(reasoned(Vote(samples=3, stop="all"), temperature=1.0, max_new_tokens=400, deadline=clock.now + 5))
    for _ in range(12):
        driver.step()
    clock.now += 6
    answer = driver.run()["a"]
    conclusion = answer.outputs[-1].conclusion
    assert shown(answer) == "8" and conclusion is not None and conclusion.confidence == 1.0
    assert unused_blocks(driver) == 256


def test_a_caller_who_leaves_frees_everything() -> None:
    driver = driver_of(Says(["8 " * 100]))
    driver.add(reasoned(Vote(samples=6, stop="all"), temperature=1.0, max_new_tokens=400))
    for _ in range(10):
        driver.step()
    driver.core.abort("a")
    driver.run()
    assert unused_blocks(driver) == 256


def test_the_prompt_is_computed_once_for_the_first_samples() -> None:
    driver = driver_of(Says(["8"]))
    request = reasoned(Vote(samples=8, stop="all"), temperature=1.0)
    driver.add(request)
    driver.run()
    computed = driver.core._runner.computed_tokens  # type: ignore[attr-defined]
    assert computed <= len(request.token_ids) + 8 * 2


@pytest.mark.parametrize(
    ("settings_", "options", "field"),
    [
        (Vote(samples=0), {}, "reasoning.vote.samples"),
        (Vote(weight="mean"), {}, "reasoning.vote.weight"),  # type: ignore[arg-type]
        (Vote(stop="soon"), {}, "reasoning.vote.stop"),  # type: ignore[arg-type]
        (Vote(span=AnswerSpan(kind=AnswerKind.CONTINUATION)), {}, "reasoning.vote.span.kind"),
        (Vote(low_confidence=LowConfidence(window=0)), {}, "reasoning.vote.low_confidence"),
        (Vote(), {"temperature": 0.0}, "sampling.temperature"),
        (Vote(), {"candidates": 3}, "sampling.candidates"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(settings_: Vote, options: dict[str, Any], field: str) -> None:
    driver = driver_of(Says(["8"]))
    driver.add(reasoned(settings_, **({"temperature": 1.0} | options)))
    failure = driver.run()["a"].failure
    assert failure is not None and failure.kind is FailureKind.INVALID and failure.field == field


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 8), blocks=st.sampled_from([40, 256]), company=st.integers(0, 3), seed=st.integers(0, 99),
    stop=st.sampled_from(["settled", "posterior", "all"]), weight=st.sampled_from(["majority", "borda"]),
)  # fmt: skip
def test_the_vote_does_not_depend_on_the_load(
    rows: int, blocks: int, company: int, seed: int, stop: VoteStop, weight: VoteWeight
) -> None:
    script = by_seed(["8 dogs", "it is 5", "8", "we have 9 of them"])
    settings_ = Vote(samples=9, stop=stop, weight=weight)
    alone, crowded = driver_of(script), driver_of(script, blocks, rows)
    alone.add(reasoned(settings_, temperature=1.0, seed=seed))
    others = [reasoned(Vote(samples=3), f"other {n}", temperature=1.0, seed=n) for n in range(company)]
    crowded.add(*others, reasoned(settings_, temperature=1.0, seed=seed))
    one, other = alone.run()["a"], crowded.run()["a"]
    assert one.tokens == other.tokens and one.outputs[-1].conclusion == other.outputs[-1].conclusion
    assert unused_blocks(crowded) == blocks
