"""Where an answer stands in a text: last number, line, mention, and what a pattern from outside finds."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.checks.answer_pattern import AnswerPattern, AnswerPatternError
from ift_serve.checks.extraction import last_line, last_mention, last_written_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3, then 1,234.50 in all.", "1,234.50"),
        ("it costs -$5", "-$5"),
        ("from 7-2", "2"),
        ("3 or x12", "3"),
        ("none", None),
        ("345,678, and so on", "345,678"),
    ],
)
def test_the_last_number_as_people_write_it(text: str, number: str | None) -> None:
    found = last_written_number(text)
    assert (None if found is None else found.text) == number
    assert found is None or text[slice(*found.span)] == number


@given(st.text("ab \t\n", max_size=20))
def test_the_last_line_is_the_last_that_is_not_blank(text: str) -> None:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    found = last_line(text)
    assert (found.text if found else None) == (lines[-1] if lines else None)
    assert found is None or text[slice(*found.span)] == found.text


@pytest.mark.parametrize(
    ("text", "phrase", "begin"),
    [
        ("5 and 15 and 5.2 and 2,500", "5", 0),
        ("a 5. Then 15", "5", 2),
        ("cat, concat", "cat", 0),
        ("15", "5", None),
        ("(5) is 5%", "5", 7),
        ("x", "", None),
    ],
)
def test_a_mention_is_no_part_of_a_longer_word_or_number(text: str, phrase: str, begin: int | None) -> None:
    found = last_mention(text, phrase)
    assert (None if found is None else found.span[0]) == begin


@given(st.text("a1., ", max_size=14), st.sampled_from(["1", "a", "1.1", "a a"]))
def test_mentions_are_those_of_an_expression_with_looks_around(text: str, phrase: str) -> None:
    before = r"(?<![a1])" + (r"(?<!1[.,])" if phrase[0] == "1" else "")
    after = r"(?![a1])" + (r"(?![.,]1)" if phrase[-1] == "1" else "")
    expected = [m.start() for m in re.finditer(f"(?={before}{re.escape(phrase)}{after})", text)]
    found = last_mention(text, phrase)
    assert (found.span[0] if found else None) == (expected[-1] if expected else None)


def test_a_pattern_finds_its_last_match_by_characters() -> None:
    text = "日本 x=1 🙂 x=22."
    found = AnswerPattern(r"x=(\d+)").find(text)
    assert found is not None and text[slice(*found.span)] == found.text == "22"
    whole = AnswerPattern(r"x=\d+").find(text)
    assert whole is not None and whole.text == "x=22"


def test_a_pattern_whose_group_took_no_part_finds_nothing() -> None:
    assert AnswerPattern(r"a(b)?").find("ab a") is None
    assert AnswerPattern(r"c").find("ab") is None


@pytest.mark.parametrize("text", ["", "(", r"(a)\1", "(?=a)", "a" * 1025, "((((a{100}){100}){100}){100})"])
def test_a_pattern_that_is_not_taken_is_told(text: str) -> None:
    with pytest.raises(AnswerPatternError):
        AnswerPattern(text)


def test_a_pattern_that_takes_others_for_ever_is_quick() -> None:
    started = time.process_time()
    assert AnswerPattern("(a+)+b").find("a" * 20_000) is None
    assert time.process_time() - started < 10
