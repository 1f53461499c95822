"""The best of several draws over a scripted model."""

from __future__ import annotations

from typing import Any

import pytest

from ift_serve.engine.protocol.reasoning import BestOf, Trace
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.sequences.step import SamplingRow
from tests.support.engine_driver import Clock
from tests.support.scripted_model import Next, driver_of, reasoned, text_of, unused_blocks


class Draws:
    """The n-th sample says the n-th text, each token with that log-probability."""

    def __init__(self, texts: dict[str, float]) -> None:
        self.texts = list(texts.items())
        self.order: list[int] = []

    def __call__(self, text: str, row: SamplingRow) -> Next:
        if row.seed not in self.order:
            self.order.append(row.seed)
        whole, log_prob = self.texts[self.order.index(row.seed) % len(self.texts)]
        return Next([whole[len(text) :] if whole.startswith(text) else ""], log_prob=log_prob)


def test_the_greatest_mean_log_probability_wins_whatever_the_length() -> None:
    driver = driver_of(Draws({"a dog": -0.5, "the quick brown fox jumps over the lazy dog": -0.2, "fox": -0.4}))
    driver.add(reasoned(BestOf(samples=3), temperature=1.0))
    answer = driver.run()["a"]
    conclusion = answer.outputs[-1].conclusion
    assert text_of(answer.tokens[0]).startswith("the quick")
    assert conclusion is not None and conclusion.mode == "best_of"
    assert [branch.confidence for branch in conclusion.branches] == pytest.approx([-0.5, -0.2, -0.4])
    assert [branch.chosen for branch in conclusion.branches] == [False, True, False]
    assert conclusion.confidence == pytest.approx(-0.2) and unused_blocks(driver) == 256


def test_a_sample_whose_thought_is_cut_is_never_the_best() -> None:
    """The second sample ends within its thought."""
    driver = driver_of(Draws({"<think>5</think>8": -0.9, "<think>5 is": -0.1}))
    driver.add(reasoned(BestOf(samples=2, trace=Trace(budget=30)), temperature=1.0))
    answer = driver.run()["a"]
    conclusion = answer.outputs[-1].conclusion
    assert text_of(answer.tokens[0]).startswith("<think>5</think>8")
    assert conclusion is not None and conclusion.answer == "8"


def test_a_deadline_answers_with_the_best_that_is_over() -> None:
    clock = Clock()
    driver = driver_of(Draws({"a dog": -0.5, "fox " * 90: -0.1, "fox": -0.4}), clock=clock)
    driver.add(reasoned(BestOf(samples=3), temperature=1.0, max_new_tokens=300, deadline=clock.now + 5))
    for _ in range(12):
        driver.step()
    clock.now += 6
    answer = driver.run()["a"]
    assert text_of(answer.tokens[0]).startswith("fox</s>") and unused_blocks(driver) == 256


@pytest.mark.parametrize(
    ("settings_", "options", "field"),
    [
        (BestOf(samples=0), {}, "reasoning.best_of.samples"),
        (BestOf(by="adherence"), {}, "reasoning.best_of.by"),
        (BestOf(), {"temperature": 0.0}, "sampling.temperature"),
        (BestOf(), {"candidates": 2}, "sampling.candidates"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(settings_: BestOf, options: dict[str, Any], field: str) -> None:
    driver = driver_of(Draws({"fox": -1.0}))
    driver.add(reasoned(settings_, **({"temperature": 1.0} | options)))
    failure = driver.run()["a"].failure
    assert failure is not None and failure.kind is FailureKind.INVALID and failure.field == field
