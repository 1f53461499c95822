"""Prompts of IFEval-shaped files, scored strictly and loosely by one set of instructions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ift_serve.checks.errors import UnknownInstructionError
from ift_serve.checks.instructions import COLUMNS, InstructedPrompt
from tests.checks.ifeval.cases import CASES

ROW: dict[str, Any] = {
    "key": 7, "prompt": "Write about rivers without commas, in quotation marks.",
    "instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}],
}  # fmt: skip


def test_an_answer_is_scored_by_instruction_and_as_a_whole() -> None:
    found = InstructedPrompt.parse(ROW).judge('Sure!\n"Rivers flow."', "repaired")
    assert [bool(v) for v in found.strict] == [True, False] and [bool(v) for v in found.loose] == [True, True]
    assert not found.follows_strictly and found.follows_loosely
    assert found.strict[1].reason == "does not begin with a quotation mark" and found.strict[1].span == (0, 1)


def test_files_that_fill_arguments_with_none_are_read() -> None:
    filled = {**ROW, "kwargs": [{"num_words": None, "relation": None}, None]}
    assert InstructedPrompt.parse(filled) == InstructedPrompt.parse(ROW)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"instruction_id_list": ["keywords:rhyme"] * 2},
            UnknownInstructionError,
            "keywords:rhyme",
        ),
        ({"kwargs": [{}]}, ValueError, "row 7: 2 instructions and 1 sets of arguments"),
        ({"kwargs": [{}, {"end_phrase": "x"}]}, ValueError, "startend:quotation: end_phrase"),
    ],
)
def test_a_row_that_cannot_be_scored_is_an_error(change: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        InstructedPrompt.parse({**ROW, **change})


def test_a_row_without_instructions_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no kwargs"):
        InstructedPrompt.parse({name: value for name, value in ROW.items() if name != "kwargs"})


def test_no_verdict_flips_over_threads_and_repeats() -> None:
    pytest.importorskip("langdetect", reason="the language of an answer is told by langdetect, of the extra eval")
    prompts = [
        InstructedPrompt.parse({"prompt": "", "instruction_id_list": [case.id], "kwargs": [case.kwargs]})
        for case in CASES
    ]

    def judged(_: int) -> list[Any]:
        pairs = zip(prompts, CASES, strict=True)
        return [prompt.judge(case.response, column) for prompt, case in pairs for column in COLUMNS]

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(judged, range(10))
    assert all(other == first for other in others)
