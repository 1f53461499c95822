"""Thoughts over a scripted model: exact budgets, minima, closing messages, early exits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.protocol.reasoning import EarlyExit, ExitRule, Trace
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.step import SamplingRow
from tests.support.engine_driver import Answer, Driver
from tests.support.scripted_model import (
    Next,
    Script,
    driver_of,
    ids_of,
    reasoned,
    text_of,
    tokenizer,
    unused_blocks,
)

OPEN, CLOSE = "<think>", "</think>"


def thinking(thought: str, answer: str = "8 dogs", **statistics: Any) -> Script:
    """A model that thinks, closes its thought by itself, answers and ends; after any close it answers."""

    def script(text: str, row: SamplingRow) -> Next:
        if CLOSE in text:
            begun = text.split(CLOSE)[-1].removeprefix(" So:")
            return Next([answer[len(begun) :] if answer.startswith(begun) else ""], **statistics)
        whole = OPEN + thought + CLOSE
        return Next([whole[len(text) :] if whole.startswith(text) else CLOSE, "fox"], **statistics)

    return script


def run(script: Script, settings_: Trace, **options: Any) -> tuple[Answer, Driver]:
    driver = driver_of(script)
    driver.add(reasoned(settings_, **options))
    answer = driver.run()["a"]
    assert unused_blocks(driver) == 256
    return answer, driver


def shown(answer: Answer, candidate: int = 0) -> str:
    return text_of(answer.tokens[candidate]).removesuffix("</s>")


def thought_tokens(answer: Answer) -> int:
    ids = answer.tokens[0]
    opened, closed = tokenizer().convert_tokens_to_ids([OPEN, CLOSE])
    return ids.index(closed) - ids.index(opened) - 1


def test_a_thought_that_closes_itself_is_left_alone() -> None:
    answer, _ = run(thinking("5 and 3"), Trace(budget=50))
    assert shown(answer) == "<think>5 and 3</think>8 dogs"
    assert answer.reasons == {0: FinishReason.EOS}
    assert answer.outputs[-1].conclusion is not None and answer.outputs[-1].conclusion.mode == "trace"


@pytest.mark.parametrize("budget", [1, 2, 7, 20])
def test_case_1_the_budget_is_exact_to_the_token(budget: int) -> None:
    answer, _ = run(thinking("a dog and " * 30), Trace(budget=budget))
    assert thought_tokens(answer) == budget
    assert shown(answer).endswith("</think>8 dogs")


def test_case_2_a_budget_of_0_closes_at_once_and_answers() -> None:
    answer, _ = run(thinking("never"), Trace(budget=0))
    assert shown(answer).removeprefix(OPEN).removeprefix(CLOSE) == "8 dogs"


def test_case_4_a_thought_that_is_opened_again_gets_what_is_left() -> None:
    def script(text: str, row: SamplingRow) -> Next:
        again = OPEN + "again " * 5
        whole = OPEN + "a dog " * 20
        if text.count(CLOSE) == 1:
            begun = text.split(CLOSE)[1]
            return Next([again[len(begun) :] if again.startswith(begun) else ""])
        return Next(["8"[len(text.split(CLOSE)[-1]) :] if CLOSE in text else whole[len(text) :]])

    answer, _ = run(script, Trace(budget=6))
    assert shown(answer).endswith("</think><think></think>8")


def test_case_6_the_message_comes_once_before_the_marker() -> None:
    answer, _ = run(thinking("a dog and " * 30), Trace(budget=5, message=" It is late."))
    assert shown(answer).count(" It is late.</think>") == 1
    assert answer.usage is not None
    assert answer.usage.forced_tokens == 1 + len(ids_of(" It is late.</think>"))
    assert [one.forced for output in answer.outputs for one in output.statistics].count(True) == 1 + len(
        ids_of(" It is late.</think>")
    )


def test_case_6_a_character_is_not_cut() -> None:
    faces = ids_of("🙃" * 9)
    assert len(faces) > 9

    def script(text: str, row: SamplingRow) -> Next:
        if CLOSE in text or OPEN not in text:
            return thinking("")(text, row)
        return Next([""], token_id=faces[len(row.history) - row.prompt_length - 1])

    for budget in range(1, 9):
        answer, _ = run(script, Trace(budget=budget))
        assert "\ufffd" not in shown(answer) and shown(answer).endswith("🙃</think>8 dogs")
        assert budget <= thought_tokens(answer) < budget + 4


def test_a_minimum_keeps_markers_and_ends_away() -> None:
    """They are masked, so nothing gives way and nothing is forced for it."""
    answer, _ = run(thinking("5"), Trace(budget=50, minimum=4), max_new_tokens=20)
    assert shown(answer).startswith("<think>5") and thought_tokens(answer) >= 4
    assert shown(answer).endswith("</think>8 dogs")

    def ends(text: str, row: SamplingRow) -> Next:
        return Next(["", "fox"])

    early, _ = run(ends, Trace(budget=50, minimum=4))
    forced = [one.forced for output in early.outputs for one in output.statistics]
    assert forced == [True] + [False] * 5
    assert text_of(early.tokens[0]).count("</s>") == 1 and len(early.tokens[0]) == 6


def test_case_27_before_the_minimum_ends_stops_and_markers_are_masked_and_nothing_else_is() -> None:
    seen: list[tuple[int, list[int] | None]] = []
    size, stop = len(tokenizer()), ids_of("dog")[0]

    def script(text: str, row: SamplingRow) -> Next:
        words = None if row.mask is None else row.mask.words()
        refused = None if words is None else [i for i in range(size) if not words[i // 32] >> i % 32 & 1]
        seen.append((len(row.history) - row.prompt_length, refused))
        return thinking("fox " * 9)(text, row)

    answer, _ = run(script, Trace(budget=50, minimum=3), stop_ids=[stop])
    closing, end = tokenizer().convert_tokens_to_ids([CLOSE, "</s>"])
    masks = [refused for _, refused in seen]
    # The first draw is the one that the opening marker takes the place of.
    assert masks[1:4] == [sorted({closing, end, stop})] * 3
    assert masks[4:] == [None] * len(masks[4:])
    assert shown(answer).endswith("</think>8 dogs")


def test_the_answer_has_a_limit_of_its_own() -> None:
    answer, _ = run(thinking("5", "a dog " * 40), Trace(budget=200), max_new_tokens=9)
    assert answer.reasons == {0: FinishReason.LENGTH}
    assert len(ids_of(shown(answer).split(CLOSE)[1])) == 9


def test_stop_tokens_are_text_within_a_thought() -> None:
    stop = ids_of("dog")[0]
    answer, _ = run(thinking("dogs bark", "8 dogs"), Trace(budget=30), stop_ids=[stop])
    assert "<think>dog" in shown(answer).replace(" ", "") and CLOSE in shown(answer)


def test_candidates_think_by_themselves() -> None:
    def script(text: str, row: SamplingRow) -> Next:
        return thinking("a dog " * (1 + row.seed % 7))(text, row)

    answer, _ = run(script, Trace(budget=9), candidates=3, temperature=1.0)
    assert all(shown(answer, candidate).endswith("</think>8 dogs") for candidate in range(3))


PARAGRAPHS = "a dog\n\n" * 12


def test_a_thought_ends_where_the_entropy_of_its_answer_has_settled() -> None:
    """Entropies are 2 for four paragraphs, then .1: with a = 1/2 the variance falls below .02 a few probes later."""

    def script(text: str, row: SamplingRow) -> Next:
        said = thinking(PARAGRAPHS)(text, row)
        return Next(said.rests, entropy=2.0 if text.count("\n\n") <= 4 else 0.1)

    exits = EarlyExit(rule="entropy", threshold=0.02, smoothing=0.5, least_probes=5)
    answer, _ = run(script, Trace(budget=400, early_exit=exits), max_new_tokens=20)
    paragraphs = shown(answer).count("\n\n")
    assert 5 < paragraphs < 12 and shown(answer).endswith("</think>8 dogs")
    whole, _ = run(script, Trace(budget=400), max_new_tokens=20)
    assert shown(whole).count("\n\n") == 12
    assert answer.usage is not None and answer.usage.sequences == 1 + paragraphs


def test_a_thought_ends_where_a_trial_answer_is_sure() -> None:
    def script(text: str, row: SamplingRow) -> Next:
        said = thinking(PARAGRAPHS)(text, row)
        return Next(said.rests, p1=0.99 if text.count("\n\n") >= 3 else 0.6, p2=0.0)

    exits = EarlyExit(rule="confidence", trial_tokens=4)
    answer, _ = run(script, Trace(budget=400, early_exit=exits))
    assert 3 <= shown(answer).count("\n\n") < 12 and shown(answer).endswith("</think>8 dogs")


def test_what_is_never_sure_thinks_to_its_end() -> None:
    exits = EarlyExit(rule="confidence", trial_tokens=4, prompt=" So:")
    answer, _ = run(thinking(PARAGRAPHS, p1=0.5), Trace(budget=400, early_exit=exits))
    plain, _ = run(thinking(PARAGRAPHS, p1=0.5), Trace(budget=400))
    assert answer.tokens == plain.tokens
    assert answer.usage is not None and plain.usage is not None
    assert answer.usage.drawn_tokens > plain.usage.drawn_tokens


def test_probes_of_a_candidate_that_the_front_stops_end_with_it() -> None:
    driver = driver_of(thinking("a dog\n\n" * 50))
    exits = EarlyExit(rule="confidence", trial_tokens=50)
    driver.add(reasoned(Trace(budget=300, early_exit=exits)))
    for _ in range(15):
        driver.step()
    driver.core.stop("a", 0)
    driver.run()
    assert not driver.core.has_work() and unused_blocks(driver) == 256


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        (Trace(budget=3, minimum=4), "reasoning.trace.minimum"),
        (Trace(open_marker="<a>", close_marker="<a>"), "reasoning.trace"),
        (Trace(early_exit=EarlyExit(rule="boredom")), "reasoning.trace.early_exit.rule"),  # type: ignore[arg-type]
        (Trace(early_exit=EarlyExit(smoothing=0.0)), "reasoning.trace.early_exit.smoothing"),
        (Trace(early_exit=EarlyExit(trial_tokens=0)), "reasoning.trace.early_exit.trial_tokens"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(settings_: Trace, field: str) -> None:
    answer, _ = run(thinking("5"), settings_)
    assert answer.failure is not None and answer.failure.kind is FailureKind.INVALID
    assert answer.failure.field == field


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 6), blocks=st.sampled_from([60, 256]), company=st.integers(0, 2), budget=st.integers(0, 60),
    minimum=st.integers(0, 10), rule=st.sampled_from(["entropy", "confidence", None]),
)  # fmt: skip
def test_case_12_thoughts_do_not_depend_on_the_load(
    rows: int, blocks: int, company: int, budget: int, minimum: int, rule: ExitRule | None
) -> None:
    exits = EarlyExit(rule=rule, trial_tokens=3, smoothing=0.5, threshold=0.3) if rule else None
    settings_ = Trace(budget=budget, minimum=min(minimum, budget), message=" Now.", early_exit=exits)

    def script(text: str, row: SamplingRow) -> Next:
        said = thinking("a dog\n\n" * (2 + row.seed % 5))(text, row)
        return Next(said.rests, p1=0.5 + (len(text) % 10) / 20, entropy=(len(text) * 7 % 5) / 5)

    request = reasoned(settings_, temperature=1.0, candidates=2, max_new_tokens=12)
    alone, crowded = driver_of(script), driver_of(script, blocks, rows)
    alone.add(request)
    crowded.add(*(reasoned(settings_, f"other {n}", max_new_tokens=12) for n in range(company)), request)
    one, other = alone.run()["a"], crowded.run()["a"]
    assert one.failure is None
    assert one.tokens == other.tokens and one.reasons == other.reasons
    assert one.usage is not None and other.usage is not None
    assert one.usage.drawn_tokens == other.usage.drawn_tokens
    assert unused_blocks(crowded) == blocks
