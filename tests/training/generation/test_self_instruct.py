"""Self-Instruct by its published rules: what is shown, what is rejected, what becomes a record."""

from __future__ import annotations

import random

import pytest

from ift_serve.evaluation.serving.outcomes import Answer
from ift_training.data.generation.self_instruct.instances import (
    input_first,
    is_classification,
    output_first,
)
from ift_training.data.generation.self_instruct.instructions import candidates, choose, numbered
from ift_training.data.generation.settings import InstructionSettings

_SETTINGS = InstructionSettings()


def _parsed(text: str, **answer: object) -> list[tuple[str, str]]:
    found = candidates(Answer(text, **answer), _SETTINGS)  # type: ignore[arg-type]
    return [(each.text, "" if each.rejection is None else each.rejection.name) for each in found]


def test_a_prompt_shows_six_seeds_and_two_machine_instructions() -> None:
    human, machine = [f"h{n}" for n in range(20)], [f"m{n}" for n in range(5)]
    shown = choose(random.Random(0), human, machine, _SETTINGS)
    assert len(shown) == len(set(shown)) == 8
    assert sum(each.startswith("h") for each in shown) == 6
    orders = {tuple(each[0] for each in choose(random.Random(seed), human, machine, _SETTINGS)) for seed in range(20)}
    assert len(orders) > 5, "shuffled"


@pytest.mark.parametrize(("machine", "human"), [(0, 8), (1, 7), (9, 6)])
def test_seeds_stand_in_for_machine_instructions_that_are_not_there(machine: int, human: int) -> None:
    shown = choose(random.Random(0), [f"h{n}" for n in range(20)], [f"m{n}" for n in range(machine)], _SETTINGS)
    assert sum(each.startswith("h") for each in shown) == human and len(shown) == 8


def test_few_seeds_are_all_shown() -> None:
    assert sorted(choose(random.Random(0), ["h0", "h1"], [], _SETTINGS)) == ["h0", "h1"]


def test_examples_are_numbered_lines() -> None:
    assert numbered(["Do\n this:", "  And that. "]) == "1. Do this\n2. And that."


def test_a_list_is_cut_into_its_entries() -> None:
    text = " write a poem for Anna\n10. Say  what\nit is about\n11 . List five large cities\n12.no entry of its own"
    assert _parsed(text) == [
        ("Write a poem for Anna", ""),
        ("Say what it is about", ""),
        ("List five large cities 12.no entry of its own", ""),
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Say it twice", "length"),
        ("Say it twice more", ""),
        (" ".join(["word"] * 150), ""),
        (" ".join(["word"] * 151), "length"),
        ("Describe the picture in words", "keyword"),
        ("Draw a house and a tree", "keyword"),
        ("Go To the shop and back", "keyword"),
        ("Describe the filesystem of this computer", ""),
        ("write a program that adds numbers", "beginning"),
        ("- say it once and again", "punctuation"),
        ("Übersetze diesen Satz ins Englische", "not_ascii"),
        ("Translate Übung into English please", ""),
    ],
)
def test_each_rule_rejects_what_it_is_for(text: str, rule: str) -> None:
    assert [name for _, name in _parsed(text)] == [rule]


def test_an_answer_that_was_cut_is_dropped_as_published() -> None:
    assert _parsed(" say what it is\n10. say it", finish_reason="length") == [("", "cut")]


def test_whole_entries_of_an_answer_that_was_cut_may_be_kept() -> None:
    settings = InstructionSettings(keep_cut=True)
    found = candidates(Answer(" say what it is\n10. say what it", finish_reason="length"), settings)
    assert [each.rejection and each.rejection.name for each in found] == [None, "cut"]


def test_a_list_of_a_conversation_begins_with_its_number() -> None:
    settings = InstructionSettings.model_validate({"speaker": {"style": "chat"}})
    found = candidates(Answer("9. say what it is\n10. say what that is"), settings)
    assert [each.text for each in found] == ["Say what it is", "Say what that is"]


def test_an_empty_answer_has_no_candidates() -> None:
    assert _parsed("  \n") == []


@pytest.mark.parametrize(
    ("text", "expected"), [(" Yes", True), ("yes.", True), (" No", False), ("Maybe", False), ("", False)]
)
def test_a_classification_is_what_is_said_to_be_one(text: str, expected: bool) -> None:
    assert is_classification(Answer(text)) is expected


def _instances(found: list[object]) -> list[tuple[str, str, str]]:
    return [(e.input, e.output, e.rejection.name if e.rejection else "") for e in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d", [("a", "b", ""), ("c", "d", "")]),
        ("Example 1\nOutput: only this", [("", "only this", "")]),
        ("Input: a\nOutput: b", [("a", "b", "")]),
        ("Example 1\nonly this", [("", "only this", "")]),
        ("Example\nInput: a\nOutput: b\nInput: c\nOutput: d", [("a", "b", "")]),
        ("Input 1: a\nOutput 1: b", [("a", "b", "")]),
        ("just text", [("", "just text", "form")]),
        ("Example 1\nInput: a\nOutput: a", [("a", "a", "copy")]),
        ("Example 1\nInput: a\nOutput:", [("a", "", "empty")]),
        ("Example 1\nInput: a\nOutput: these:", [("a", "these:", "unfinished")]),
        (
            "Example 1\nInput: a\nOutput: b\nExample 2\nInput: a\nOutput: c",
            [("a", "b", "contradiction"), ("a", "c", "contradiction")],
        ),
        (
            "Example 1\nInput: a\nOutput: b\nExample 2\nInput: a\nOutput: b",
            [("a", "b", ""), ("a", "b", "repeated")],
        ),
        ("Example 1\nOutput: b\nExample 2\nOutput: c", [("", "b", ""), ("", "c", "")]),
    ],
)
def test_input_first_instances(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert _instances(list(input_first(Answer(text)))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Class label: Good\nIt was fine.\nClass label: Bad\nIt broke.",
            [("It was fine.", "Good", ""), ("It broke.", "Bad", "")],
        ),
        ("Class label: Good\nInput: It was fine.", [("It was fine.", "Good", "")]),
        ("Class label: Good", [("", "Good", "")]),
        ("Good", [("", "Good", "form")]),
        ("Class label: Good\nIt was fine.\nOutput: No.", [("It was fine.\nOutput: No.", "Good", "form")]),
    ],
)
def test_output_first_instances(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert _instances(list(output_first(Answer(text)))) == expected


def test_what_was_cut_loses_its_last_instance() -> None:
    text = "Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d"
    assert _instances(list(input_first(Answer(text, finish_reason="length")))) == [("a", "b", ""), ("c", "d", "cut")]
