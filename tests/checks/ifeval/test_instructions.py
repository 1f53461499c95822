"""Every IFEval instruction on answers that follow it, do not follow it, or try to fool its checker."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.checks import judge, parse_check
from ift_serve.checks.errors import MissingExtraError, UnknownInstructionError
from ift_serve.checks.ifeval import IFEVAL
from ift_serve.checks.instructions import COLUMNS, Column, judge_loose, judge_strict, parse_instruction
from ift_serve.checks.instructions.loose import relaxed
from tests.checks.ifeval.cases import CASES, Case

pytest.importorskip("langdetect", reason="the language of an answer is told by langdetect, of the extra eval")


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
    assert len(IFEVAL) == 25
    for name in IFEVAL:
        kinds = {case.kind for case in CASES if case.id == name}
        assert kinds == {"passing", "failing", "adversarial"}, name
        assert {case.passes for case in CASES if case.id == name} == {True, False}, name


def test_the_columns_differ_by_the_named_defects_alone() -> None:
    assert {case.id for case in CASES if case.published not in (None, case.passes)} == {
        "keywords:letter_frequency", "length_constraints:nth_paragraph_first_word", "change_case:english_capital",
    }  # fmt: skip


BLANK = ["", " ", "\n\n", "\t"]


@pytest.mark.parametrize("response", BLANK)
@pytest.mark.parametrize("column", COLUMNS)
def test_an_empty_answer_follows_nothing(response: str, column: Column) -> None:
    for case in CASES:
        instruction = parse_instruction(case.id, case.kwargs)
        assert not judge_strict(instruction, response, column) and not judge_loose(instruction, response, column)


pieces = st.sampled_from(
    [*(case.response for case in CASES), "*", "\n", "Sure! Here it is:", '"', "***", ",", "a", "é"]
)
answers = st.lists(pieces, max_size=5).map("\n".join) | st.lists(pieces, max_size=4).map("".join) | st.text(max_size=60)


@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(CASES), response=answers, column=st.sampled_from(COLUMNS))
def test_what_passes_strictly_passes_loosely_and_all_is_explained(case: Case, response: str, column: Column) -> None:
    instruction = parse_instruction(case.id, case.kwargs)
    strict, loose = (judge(instruction, response, column) for judge in (judge_strict, judge_loose))
    assert loose or not strict
    assert loose.passed == any(judge_strict(instruction, text, column) for text in relaxed(response))
    for verdict in (strict, loose):
        assert verdict.passed == (not verdict.reason)
        assert verdict.span is None or 0 <= verdict.span[0] <= verdict.span[1] <= len(response)
    assert judge_strict(instruction, response, column) == strict


def test_the_loose_reading_leaves_out_what_frames_an_answer() -> None:
    instruction = parse_instruction("startend:quotation", {})
    answer = 'Sure! Here it is:\n**"Hello."**\nI hope this helps.'
    assert not judge_strict(instruction, answer, "repaired") and judge_loose(instruction, answer, "repaired")
    assert relaxed("a\nb*\nc") == ["a\nb*\nc", "b*\nc", "a\nb*", "b*", "a\nb\nc", "b\nc", "a\nb", "b"]


def test_an_unknown_instruction_is_an_error() -> None:
    with pytest.raises(UnknownInstructionError, match="'keywords:rhyme'"):
        parse_instruction("keywords:rhyme", {})
    with pytest.raises(ValueError, match="no checker for the instruction"):
        parse_check({"type": "instruction", "instruction_id": "keywords:rhyme"})


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("keywords:frequency", {"keyword": "a", "frequency": 2}, "keywords:frequency: relation: Field required"),
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "more"}, "relation: "),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"}, "num_words: "),
        ("punctuation:no_comma", {"language": "en"}, "language: "),
        ("language:response_language", {"language": "tlh"}, "language: "),
        ("keywords:existence", {"keywords": []}, "keywords: "),
        ("keywords:existence", {"keywords": ["(a"]}, "keywords.0: "),
        ("keywords:existence", {"keywords": ["(a*)*" * 40 + r"\1"]}, "keywords.0: "),
        ("keywords:existence", {"keywords": ["x" * 201]}, "keywords.0: "),
    ],
)
def test_wrong_arguments_are_named(name: str, kwargs: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_instruction(name, kwargs)
    assert said in str(error.value)


def test_arguments_that_are_none_are_absent() -> None:
    given_ = {"num_words": None, "relation": None, "language": None}
    assert parse_instruction("punctuation:no_comma", given_) == parse_instruction("punctuation:no_comma", {})


def test_an_instruction_is_a_check_among_others() -> None:
    found = {"type": "instruction", "instruction_id": "keywords:letter_frequency"}
    kwargs = {"letter": "!", "let_frequency": 2, "let_relation": "at least"}
    assert judge(parse_check({**found, "kwargs": kwargs}), "Go!!")
    assert not judge(parse_check({**found, "kwargs": kwargs, "column": "published"}), "Go!!")
    quoted = {"type": "instruction", "instruction_id": "startend:quotation"}
    assert not judge(parse_check(quoted), 'Sure:\n"Yes."') and judge(
        parse_check({**quoted, "loose": True}), 'Sure:\n"Yes."'
    )


_SIZE = 60_000
HOSTILE = {
    "letters": "a" * _SIZE, "stars": "*" * _SIZE, "stars apart": "* " * (_SIZE // 2), "brackets": "[" * _SIZE,
    "angles": "<" * _SIZE, "lines": "\n" * _SIZE + "x", "spaces": " " * _SIZE + "*", "periods": "a. " * (_SIZE // 3),
    "dots": "." * _SIZE, "dot space": ". " * (_SIZE // 2), "marks": "?!" * (_SIZE // 2), "dashes": "-" * _SIZE,
    "nested": "[" * _SIZE, "addresses": "http://" * (_SIZE // 7), "mails": "a@" * (_SIZE // 2),
    "P.": "P. " * (_SIZE // 3),
    "capitals": "AND SO ON " * (_SIZE // 10), "quotes": '"' * _SIZE, "sections": "SECTION" * (_SIZE // 7),
    "fences": "```" * (_SIZE // 3),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_answers_are_judged_in_time(text: str) -> None:
    instructions = {(case.id, str(case.kwargs)): parse_instruction(case.id, case.kwargs) for case in CASES}
    keyword = {"keyword": "a" * 200, "frequency": 2, "relation": "at least"}
    pattern = {"keywords": ["(a|aa)+b", "(.*)*x"]}
    hard = [parse_instruction("keywords:frequency", keyword), parse_instruction("keywords:existence", pattern)]
    begun = time.process_time()
    for instruction in [*instructions.values(), *hard]:
        judge_strict(instruction, text, "repaired")
        judge_strict(instruction, text, "published")
    # 45 instructions twice take about 1 s on a slow core; what backtracks would take minutes.
    assert time.process_time() - begun < 20


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from ift_serve.checks.language import identification as language

    language._filled_factory.cache_clear()
    monkeypatch.setitem(sys.modules, "langdetect.detector_factory", None)
    with pytest.raises(MissingExtraError, match=r"langdetect.*ift-serve\[eval\]"):
        judge_strict(parse_instruction("language:response_language", {"language": "en"}), "Hello there", "repaired")
