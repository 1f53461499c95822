"""Checks of form, against texts made to do what they ask and texts made not to."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.checks import judge, parse_check

texts = st.text(max_size=40)
phrases = st.text(min_size=1, max_size=20).filter(str.strip)
ends = st.one_of(phrases, st.text("ab .!?", min_size=1, max_size=6).filter(str.strip))
words = st.text(string.ascii_letters + "+#-!.'", min_size=1, max_size=8)
plain_words = st.text(string.ascii_lowercase, min_size=1, max_size=8)
spaces = st.text(" \n", max_size=3)


def passes(kind: str, text: str, **fields: Any) -> bool:
    verdict = judge(parse_check({"type": kind, **fields}), text)
    assert verdict.passed == (not verdict.reason)
    assert verdict.span is None or 0 <= verdict.span[0] <= verdict.span[1] <= len(text)
    return verdict.passed


@given(spaces, phrases, texts)
def test_begin(space: str, phrase: str, rest: str) -> None:
    assert passes("begin", space + phrase + rest, phrase=phrase)
    assert not passes("begin", "\x00" + phrase.strip("\x00"), phrase="x" + phrase)


@given(texts, ends, st.sampled_from(["", ".", "!", "...", " ", "\n"]))
def test_end(text: str, phrase: str, after: str) -> None:
    assert passes("end", text + phrase.strip() + after, phrase=phrase)
    assert not passes("end", text + phrase + "x" + after, phrase=phrase + "y")


def test_an_end_with_its_own_mark() -> None:
    assert passes("end", "Roger. Over and out!", phrase="Over and out!")
    assert not passes("end", "Over and out", phrase="Over and out!")


@given(texts, words, texts)
def test_include_and_avoid(before: str, word: str, after: str) -> None:
    text = f"{before} {word} {after}"
    assert passes("include", text, word=word) and passes("include", text.swapcase(), word=word)
    assert not passes("avoid", text, word=word)


@given(plain_words, st.lists(plain_words))
def test_a_word_is_no_part_of_another(word: str, others: list[str]) -> None:
    text = " ".join([*(other for other in others if other != word), f"x{word}", f"{word}x"])
    assert not passes("include", text, word=word) and passes("avoid", text, word=word)


@given(st.lists(plain_words, min_size=1), st.integers(1, 5))
def test_bullets_and_words(found: list[str], limit: int) -> None:
    assert passes("bullets", "\n".join(f"- {word}" for word in found))
    assert not passes("bullets", "\n".join([*(f"- {word}" for word in found), found[0]]))
    assert passes("max_words", " ".join(found), limit=len(found))
    assert passes("max_words", " ".join(found), limit=limit) == (len(found) <= limit)


@given(st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner)), spaces)
def test_json(value: Any, space: str) -> None:
    assert passes("json", space + json.dumps(value) + space)
    assert not passes("json", json.dumps(value) + " and so on")


@pytest.mark.parametrize("text", ["NaN", "[NaN]", "Infinity", '{"a": -Infinity}', "[" * 100_000, "'a'", "[1,]", ""])
def test_what_is_no_json(text: str) -> None:
    assert not passes("json", text)


def test_a_long_number_is_json() -> None:
    assert passes("json", "9" * 10_000) and passes("json", "[-" + "9" * 10_000 + "]")


@given(st.lists(plain_words, min_size=2), st.sampled_from(["", "."]))
def test_commas(found: list[str], stop: str) -> None:
    assert passes("commas", ", ".join(found) + stop)
    assert not passes("commas", "; ".join(found) + stop)


@given(texts, st.sampled_from("aé\u00e0ж"))
def test_upper(text: str, small: str) -> None:
    assert not passes("upper", text + small)
    shown = "".join(letter for letter in text.upper() if not letter.islower())
    assert passes("upper", shown)


@pytest.mark.parametrize(
    ("check", "text", "points_at"),
    [
        ({"type": "begin", "phrase": "Of course"}, "  Of course, yes", "Of course"),
        ({"type": "begin", "phrase": "Of course"}, "\n Sure thing", "Sure thin"),
        ({"type": "end", "phrase": "The end"}, "Once. The end.\n", "The end."),
        ({"type": "end", "phrase": "The end"}, " Once upon \n", "ce upon"),
        ({"type": "include", "word": "fox"}, "Foxes, a FOX", "FOX"),
        ({"type": "avoid", "word": "fox"}, "Foxes, a FOX", "FOX"),
        ({"type": "bullets"}, "\n- a\n* b\n- c", "* b"),
        ({"type": "json"}, ' ["a", b]', "b"),
        ({"type": "upper"}, "ABc", "c"),
        ({"type": "max_words", "limit": 2}, " one two three  four ", "three  four"),
    ],
)
def test_a_verdict_points_into_the_response_as_it_was_given(check: dict[str, Any], text: str, points_at: str) -> None:
    span = judge(parse_check(check), text).span
    assert span is not None
    shown = text[slice(*span)]
    assert shown == points_at or (check["type"] == "json" and text[span[0] :].startswith(points_at))


@given(st.lists(plain_words), st.integers(1, 5))
def test_least_words_and_sentences(found: list[str], least: int) -> None:
    assert passes("min_words", "\n".join(found), least=least) == (len(found) >= least)
    assert passes("min_sentences", "".join(f"{word}? " for word in found), least=least) == (len(found) >= least)


@pytest.mark.parametrize(
    ("pattern", "text", "points_at"),
    [
        (r"\d+", "é 12 and 7", "12"),
        ("(?i)yes", "no, YES", "YES"),
        ("(?m)^- b$", "- a\n- b\n- c", "- b"),
        (r"(?s)a.*c", "xa\nbcx", "a\nbc"),
        ("^b", "ab", None),
        ("Å.", "ÅÄÖ", "ÅÄ"),
    ],
)
def test_a_pattern(pattern: str, text: str, points_at: str | None) -> None:
    wanted = judge(parse_check({"type": "pattern", "pattern": pattern}), text)
    unwanted = judge(parse_check({"type": "pattern", "pattern": pattern, "wanted": False}), text)
    assert wanted.passed == (points_at is not None) and unwanted.passed != wanted.passed
    for verdict in (wanted, unwanted):
        assert (text[slice(*verdict.span)] if verdict.span else None) == points_at
