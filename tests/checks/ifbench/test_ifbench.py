"""Every IFBench instruction on answers that follow it, do not follow it, or try to fool its checker."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.checks.ifbench import IFBENCH
from ift_serve.checks.ifbench.text import sentences
from ift_serve.checks.instructions import COLUMNS, Column, judge_loose, judge_strict, parse_instruction
from tests.checks.ifbench.cases import CASES
from tests.checks.ifeval.cases import Case

pytest.importorskip("emoji", reason="emojis are told by the package emoji, of the extra eval")
pytest.importorskip("syllapy", reason="syllables are counted by the package syllapy, of the extra eval")
DEFECTS = {
    "format:line_indent", "ratio:sentence_type", "repeat:repeat_span", "words:vowel", "words:words_position",
}  # fmt: skip


def _name(case: object) -> str:
    return f"{case.id}-{case.kind}" if isinstance(case, Case) else str(case)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("case", CASES, ids=_name)
def test_an_answer_is_judged(case: Case, column: Column) -> None:
    verdict = judge_strict(parse_instruction(case.id, case.kwargs), case.response, column)
    assert verdict.passed == (case.published_passes if column == "published" else case.passes), verdict
    assert verdict.passed == (not verdict.reason)
    if case.points_at is not None:
        assert verdict.span is not None and case.response[slice(*verdict.span)] == case.points_at


def test_every_instruction_has_answers_of_every_kind() -> None:
    assert len(IFBENCH) == 58
    for name in IFBENCH:
        assert {case.kind for case in CASES if case.id == name} == {"passing", "failing", "adversarial"}, name
        assert {case.passes for case in CASES if case.id == name} == {True, False}, name


def test_the_columns_differ_by_the_named_defects_alone() -> None:
    assert {case.id for case in CASES if case.published not in (None, case.passes)} == DEFECTS


pieces = st.sampled_from(
    [*(case.response for case in CASES), "*", "\n", "Sure!", '"', "?!", ",", " ", "A.", "é", "\n \n"]
)
answers = st.lists(pieces, max_size=4).map("\n".join) | st.lists(pieces, max_size=4).map("".join) | st.text(max_size=60)


@settings(max_examples=200, deadline=None)
@given(case=st.sampled_from(CASES), response=answers, column=st.sampled_from(COLUMNS))
def test_what_passes_strictly_passes_loosely_and_all_is_explained(case: Case, response: str, column: Column) -> None:
    instruction = parse_instruction(case.id, case.kwargs)
    strict, loose = (judge(instruction, response, column) for judge in (judge_strict, judge_loose))
    assert loose or not strict
    for verdict in (strict, loose):
        assert verdict.passed == (not verdict.reason)
        assert verdict.span is None or 0 <= verdict.span[0] <= verdict.span[1] <= len(response)
    assert judge_strict(instruction, response, column) == strict
    if case.id not in DEFECTS:
        assert judge_strict(instruction, response, "published") == judge_strict(instruction, response, "repaired")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["", " ", "  ", "a", " b", "  c", "\t"]), max_size=12))
def test_stairs_are_published_as_a_list_changed_while_it_is_walked_along(lines: list[str]) -> None:
    from ift_serve.checks.ifbench.formats import _walked_over

    walked = list(lines)
    for line in walked:
        if not line.strip():
            walked.remove(line)
    assert _walked_over(lines) == walked


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. No paid 2.5 to e.g. Mr. A. on site.com. Yes.", ["Dr. No paid 2.5 to e.g. Mr. A. on site.com.", "Yes."]),
        ("Wait... What?! No.", ["Wait...", "What?", "!", "No."]),
        (
            "He works at Acme Inc. They pay. The U.S. He said.",
            ["He works at Acme Inc", "They pay.", "The U.S.", "He said."],
        ),
        ('He said "Go." Then "Why?" Bye.', ['He said "Go".', 'Then "Why"?', "Bye."]),
        ("one\ntwo", ["one two"]),
        ("", []),
    ],
)
def test_sentences_end_by_the_benchmarks_rules(text: str, wanted: list[str]) -> None:
    assert [sentence for sentence, _ in sentences(text)] == wanted


_SIZE = 40_000
HOSTILE = {
    "letters": "a" * _SIZE, "words": "a " * (_SIZE // 2), "stars": "* " * (_SIZE // 2),
    "brackets": "([{" * (_SIZE // 3),
    "quotes": "'\"" * (_SIZE // 2), "lines": "\n" * _SIZE + "x", "blank lines": " \n\n" * (_SIZE // 3) + "x",
    "dots": "." * _SIZE, "marks": "?!" * (_SIZE // 2), "initials": "A.B. He " * (_SIZE // 8), "commas": "," * _SIZE,
    "rows": '"' * _SIZE, "digits": "9" * _SIZE, "questions": "Question 1" * (_SIZE // 10),
    "italics": "<i>" * (_SIZE // 3),
    "emojis": "😀." * (_SIZE // 2), "hyphens": "a-" * (_SIZE // 2),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_answers_are_judged_in_time(text: str) -> None:
    instructions = [parse_instruction(case.id, case.kwargs) for case in {case.id: case for case in CASES}.values()]
    begun = time.process_time()
    for instruction in instructions:
        for column in COLUMNS:
            judge_strict(instruction, text, column)
    # All 58 twice take about 1 s on a slow core; what backtracks would take minutes.
    assert time.process_time() - begun < 20
