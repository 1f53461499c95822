"""Checks as plain values: what is read, what is refused, and that hostile texts take no time."""

from __future__ import annotations

import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.checks import CHECKS, Check, fields_of, judge, judge_all, parse_check, parse_checks, pass_rates
from ift_serve.checks.extraction import boxed, choice, final_answer

EVERY: list[dict[str, Any]] = [
    {"type": "begin", "phrase": "Of course"},
    {"type": "end", "phrase": "The end"},
    {"type": "include", "word": "aab"},
    {"type": "avoid", "word": "aab"},
    {"type": "bullets"},
    {"type": "json"},
    {"type": "commas"},
    {"type": "upper"},
    {"type": "max_words", "limit": 3},
    {"type": "min_words", "least": 3},
    {"type": "min_sentences", "least": 2},
    {"type": "exact", "answer": "yes"},
    {"type": "last_number", "value": 7},
    {"type": "steps", "least": 2},
    {"type": "yes_no", "yes": True, "reason": ["1", "smaller", "2"]},
    {"type": "json_items", "items": ["a", "b"]},
    {"type": "list_items", "category": "animal", "count": 2, "joiners": ["and"]},
    {"type": "names_one", "category": "animal", "apart_from": ""},
    {"type": "pattern", "pattern": "(?i)(a|aa)+b|(.*)*x$", "wanted": True},
    {
        "type": "content", "forms": [{"type": "json"}], "reference": "a, b", "plain": {"type": "exact", "answer": "a"},
    },
    {
        "type": "instruction", "instruction_id": "punctuation:no_comma", "kwargs": {}, "column": "repaired",
        "loose": True,
    },
]  # fmt: skip


def test_every_check_is_here() -> None:
    assert {check["type"] for check in EVERY} == set(CHECKS)


@pytest.mark.parametrize("found", EVERY, ids=lambda found: found["type"])
def test_a_check_comes_back_from_json_as_it_went(found: dict[str, Any]) -> None:
    check = parse_check(found)
    again = parse_check(json.loads(check.model_dump_json()))
    assert again == check and hash(again) == hash(check)
    assert set(fields_of(check.type)) <= set(found)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "checks: write a list"),
        (["upper"], "checks[0]: write an object"),
        ([{"type": "upper"}, {"type": "rhyme"}], "checks[1].type: 'rhyme' is not one of begin, end"),
        ([{"type": ["end"]}], "checks[0].type: ['end'] is not one of"),
        ([{"phrase": "a"}], "checks[0].type: None is not one of"),
        ([{"type": "end"}], "checks[0].phrase: give a string"),
        ([{"type": "end", "phrase": " "}], "checks[0].phrase: give a string"),
        ([{"type": "end", "phrase": 3}], "checks[0].phrase: give a string"),
        ([{"type": "max_words", "limit": 0}], "checks[0].limit: give a number above 0"),
        ([{"type": "max_words", "limit": True}], "checks[0].limit: give a number above 0"),
        ([{"type": "max_words", "limit": "3"}], "checks[0].limit: give a number above 0"),
        ([{"type": "max_words"}], "checks[0].limit: give a number above 0"),
        ([{"type": "upper", "phrase": "a"}], "checks[0].phrase: is not part of a check of type 'upper'"),
        ([{"type": "pattern", "pattern": "(a"}], "checks[0].pattern: '(a' is no expression"),
        ([{"type": "pattern", "pattern": r"(a)\1"}], "checks[0].pattern: "),
        ([{"type": "pattern", "pattern": "((a{1,99}){1,99}){1,99}"}], "checks[0].pattern: "),
        ([{"type": "pattern", "pattern": "x" * 1001}], "checks[0].pattern: "),
        ([{"type": "list_items", "category": "star", "count": 2}], "checks[0].category: "),
    ],
)
def test_a_mistake_is_named_with_its_field(found: object, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_checks(found)
    assert str(error.value).startswith(said)


def test_the_first_failing_check_speaks() -> None:
    checks = parse_checks([{"type": "begin", "phrase": "A"}, {"type": "upper"}, {"type": "max_words", "limit": 1}])
    assert judge_all(checks, "A")
    assert judge_all(checks, "A b c").reason == "has small letters"
    assert judge_all((), "anything")


def test_rates_are_by_task_and_their_mean_counts_tasks() -> None:
    found = pass_rates([("b", True), ("a", False), ("b", False), ("a", False), ("b", True)])
    assert list(found.tasks) == ["b", "a"] and found.tasks["b"] == pytest.approx(2 / 3) and found.tasks["a"] == 0
    assert found.mean == pytest.approx(1 / 3) and pass_rates([]).mean == 0


@pytest.mark.parametrize("found", EVERY, ids=lambda found: found["type"])
@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_has_a_verdict_within_itself(found: dict[str, Any], text: str) -> None:
    verdict = judge(parse_check(found), text)
    assert verdict.passed == (not verdict.reason)
    assert verdict.span is None or 0 <= verdict.span[0] <= verdict.span[1] <= len(text)
    assert judge(parse_check(found), text) == verdict


_SIZE = 100_000
HOSTILE = {
    "letters": "a" * _SIZE,
    "almost the word": "aa" * (_SIZE // 2) + "b",
    "sums": "1+" * (_SIZE // 2),
    "spaced sums": "1 + " * (_SIZE // 4) + "= 1",
    "digits": "9" * _SIZE,
    "decimals": "1.1" * (_SIZE // 3),
    "spaces": " " * _SIZE + "x",
    "breaks": "\r\n" * (_SIZE // 2),
    "nested": "[" * _SIZE,
    "nested objects": '{"a":' * (_SIZE // 5),
    "commas": "a, " * (_SIZE // 3) + ",",
    "reasons": "yes because 1 is smaller " * (_SIZE // 25),
    "boxes": r"\boxed{" * (_SIZE // 7),
    "answers": "the answer is " * (_SIZE // 14),
    "animals": "cat dog " * (_SIZE // 8),
    "private characters": "".join(map(chr, range(0xE000, 0xF900))) * 30,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_texts_are_judged_in_time(text: str) -> None:
    phrases = [{"type": kind, "word": "a" * (_SIZE // 2)} for kind in ("include", "avoid")]
    begun = time.process_time()
    for check in parse_checks(EVERY + phrases):
        judge(check, text)
    for extract in (boxed, choice, final_answer):
        extract(text)
    # All of it takes 0.3 s at most on a slow core; what backtracks would take minutes.
    assert time.process_time() - begun < 5


def test_a_verdict_needs_a_check_class_of_its_own() -> None:
    with pytest.raises(TypeError):
        Check(type="none")  # type: ignore[abstract]
    assert all(get_args(kind.model_fields["type"].annotation) == (name,) for name, kind in CHECKS.items())
