"""Chain-of-thought decoding over a scripted model: what branches, what is confident, what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import Conclusion
from ift_serve.engine.protocol.reasoning import AnswerKind, AnswerSpan, Branch, RequestLimits
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.step import SamplingRow
from tests.support.engine_driver import Answer, Clock
from tests.support.scripted_model import (
    Next,
    Script,
    driver_of,
    ids_of,
    reasoned,
    text_of,
    tokenizer,
    unused_blocks,
    write,
)

DIRECT = "5 dogs"
STEPS = "I have 3, dad has 5, so 3 and 5 are 8"
OTHER = "We have 8 dogs"
TEXTS = [DIRECT, STEPS, OTHER]


def sure(confidences: dict[str, float], texts: list[str] = TEXTS) -> Script:
    """Texts whose numbers are written with these margins; the first token's distribution is that of the first text."""

    def script(text: str, row: SamplingRow) -> Next:
        rests = [whole[len(text) :] for whole in texts if whole.startswith(text)] or [""]
        whole = text + rests[0]
        margin = confidences.get(whole, 0.5)
        is_number = rests[0].lstrip()[:1].isdigit()
        p1 = 0.5 + (margin if is_number else 0.1) / 2
        return Next(rests, p1=p1, p2=1 - p1)

    return script


def run(script: Script, settings_: Branch | None = None, rows: int = 8, **options: Any) -> tuple[Answer, Conclusion]:
    driver = driver_of(script, rows=rows)
    driver.add(reasoned(settings_ or Branch(), **options))
    answer = driver.run()["a"]
    assert answer.failure is None, answer.failure
    assert unused_blocks(driver) == 256
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None
    return answer, conclusion


def shown(answer: Answer) -> str:
    return text_of(answer.tokens[0]).removesuffix("</s>")


def test_the_path_of_the_surest_answer_is_given() -> None:
    answer, conclusion = run(sure({DIRECT: 0.3, STEPS: 0.9, OTHER: 0.6}))
    assert shown(answer) == STEPS and answer.reasons == {0: FinishReason.EOS}
    assert (conclusion.mode, conclusion.answer) == ("branch", "8")
    assert conclusion.confidence == pytest.approx(0.9)
    assert [branch.answer for branch in conclusion.branches] == ["5", "8", "8"]
    assert [branch.chosen for branch in conclusion.branches] == [False, True, False]


def test_the_sum_is_over_answers_that_say_the_same() -> None:
    script = sure({DIRECT: 0.7, STEPS: 0.5, OTHER: 0.6})
    _, greatest = run(script)
    answer, summed = run(script, Branch(aggregate="sum"))
    assert greatest.answer == "5" and summed.answer == "8"
    assert summed.confidence == pytest.approx(1.1)
    assert shown(answer) == OTHER


def test_the_branch_token_is_part_of_an_answer_that_begins_the_path() -> None:
    """The only token of the first answer is the one that was branched on: its margin is that of the first draw."""
    _, conclusion = run(sure({"5": 0.3, "8": 0.9}, ["5", "8"]))
    assert [branch.confidence for branch in conclusion.branches] == pytest.approx([0.3, 0.3])


def test_only_so_many_first_tokens_are_tried() -> None:
    answer, conclusion = run(sure({OTHER: 0.9}), Branch(width=2))
    assert len(conclusion.branches) == 2 and shown(answer) != OTHER
    assert answer.usage is not None and answer.usage.sequences == 2


def test_ends_and_control_tokens_are_not_branched_on() -> None:
    def script(text: str, row: SamplingRow) -> Next:
        if not text:
            return Next(["", "<|im_start|>", *TEXTS])
        return write(TEXTS)(text, row)

    answer, conclusion = run(script)
    assert [branch.answer for branch in conclusion.branches] == ["5", "8", "8"]
    assert shown(answer) in TEXTS


def test_branching_waits_for_the_first_uncertain_position() -> None:
    texts = ["We have 5", "We have 8", "So 9"]

    def script(text: str, row: SamplingRow) -> Next:
        p1 = 0.55 if text == "We have " else 0.9
        return Next(write(texts)(text, row).rests, p1=p1, p2=1 - p1)

    _, conclusion = run(script, Branch(uncertain_below=0.2))
    assert {branch.answer for branch in conclusion.branches} == {"5", "8"}
    _, never = run(script, Branch(uncertain_below=0.05))
    assert [branch.answer for branch in never.branches] == ["5"]


def test_a_path_is_asked_for_its_answer_and_its_own_words_are_judged() -> None:
    """The confidence is that of the path's last mention, not of what the model says when asked."""

    def script(text: str, row: SamplingRow) -> Next:
        if "So the answer is" in text:
            said = " five" if text.startswith("It") else " a dog"
            rest = (said + ".\n\nmore")[len(text.split("So the answer is")[1]) :]
            return Next([rest], p1=0.99, p2=0.0)
        rests = write(["It is five of them", "A dog it is"])(text, row).rests
        return Next(rests, p1=0.6, p2=0.2 if text == "It is" else 0.5)

    span = AnswerSpan(kind=AnswerKind.CONTINUATION)
    answer, conclusion = run(script, Branch(span=span))
    first, second = conclusion.branches
    assert (first.answer, second.answer) == ("five", "a dog")
    assert 0.1 < first.confidence <= 0.4
    assert second.confidence == pytest.approx(0.99), "A dog is not a dog, letter for letter"
    assert "So the answer" not in shown(answer)
    assert answer.usage is not None and answer.usage.forced_tokens > 0


def test_a_stop_string_ends_a_hidden_path_and_is_no_part_of_its_answer() -> None:
    answer, conclusion = run(write(["8 dogs. Q: 9", "7 it is"]), Branch(width=2), stop=["Q:"])
    assert [branch.answer for branch in conclusion.branches] == ["8", "7"]
    assert conclusion.branches[0].ended is FinishReason.STOP
    assert "9" not in shown(answer)


def test_without_any_answer_the_greedy_path_is_given() -> None:
    answer, conclusion = run(write(["no idea", "who knows"]))
    assert shown(answer) == "no idea" and conclusion.answer == "" and conclusion.confidence == 0.0


def test_the_prompt_is_computed_once() -> None:
    driver = driver_of(sure({}))
    driver.add(reasoned(Branch(width=3)))
    driver.run()
    prompt = len(reasoned(Branch()).token_ids)
    written = sum(len(ids_of(text)) for text in TEXTS)
    assert driver.core._runner.computed_tokens <= prompt + written + 3  # type: ignore[attr-defined]


def test_the_tokens_of_every_path_are_counted() -> None:
    answer, conclusion = run(sure({}))
    assert answer.usage is not None
    # The forks take the branch token from the first draw.
    assert answer.usage.drawn_tokens == sum(branch.tokens for branch in conclusion.branches) - 2
    assert answer.usage.sequences == 3


def test_a_deadline_answers_with_the_paths_that_are_over() -> None:
    clock = Clock()
    driver = driver_of(write(["5", STEPS * 20]), clock=clock)
    driver.add(reasoned(Branch(), max_new_tokens=400, deadline=clock.now + 5))
    for _ in range(20):
        driver.step()
    clock.now += 6
    answer = driver.run()["a"]
    assert shown(answer) == "5" and answer.failure is None
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None and [b.answer for b in conclusion.branches] == ["5", ""]
    assert unused_blocks(driver) == 256


def test_a_caller_who_leaves_frees_everything() -> None:
    driver = driver_of(write([STEPS * 20, OTHER * 20]))
    driver.add(reasoned(Branch(), max_new_tokens=400))
    for _ in range(10):
        driver.step()
    driver.core.abort("a")
    driver.run()
    assert unused_blocks(driver) == 256


def test_no_more_sequences_than_the_request_may_have() -> None:
    driver = driver_of(sure({}))
    driver.add(reasoned(Branch(width=3), limits=RequestLimits(sequences=2)))
    answer = driver.run()["a"]
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None and len(conclusion.branches) == 2


@pytest.mark.parametrize(
    ("settings_", "options", "field"),
    [
        (Branch(width=21), {}, "reasoning.branch.width"),
        (Branch(aggregate="mean"), {}, "reasoning.branch.aggregate"),  # type: ignore[arg-type]
        (Branch(), {"temperature": 1.0}, "sampling.temperature"),
        (Branch(), {"candidates": 2}, "sampling.candidates"),
        (Branch(span=AnswerSpan(kind=AnswerKind.PATTERN, pattern="(")), {}, "reasoning.branch.span.pattern"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(settings_: Branch, options: dict[str, Any], field: str) -> None:
    driver = driver_of(sure({}))
    driver.add(reasoned(settings_, **options))
    failure = driver.run()["a"].failure
    assert failure is not None and failure.kind is FailureKind.INVALID and failure.field == field


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 8), blocks=st.sampled_from([40, 60, 256]), company=st.integers(0, 3))
def test_the_answer_does_not_depend_on_the_load(rows: int, blocks: int, company: int) -> None:
    script = sure({DIRECT: 0.3, STEPS: 0.9, OTHER: 0.6})
    alone = driver_of(script)
    alone.add(reasoned(Branch()))
    crowded = driver_of(script, blocks, rows)
    crowded.add(*(reasoned(Branch(width=2), f"other {n}") for n in range(company)), reasoned(Branch()))
    one, other = alone.run()["a"], crowded.run()["a"]
    assert one.tokens == other.tokens and one.outputs[-1].conclusion == other.outputs[-1].conclusion
    assert unused_blocks(crowded) == blocks


def test_the_end_token_is_the_tokenizers() -> None:
    assert tokenizer().eos_token_id not in ids_of("".join(TEXTS))
