"""Checks of what an answer says: numbers, steps, reasons, lists of things, content inside a form."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.checks import judge, parse_check
from ift_serve.checks.categories import CATEGORIES
from ift_serve.checks.equations import equations
from ift_serve.checks.extraction import boxed, choice, final_answer, last_number, stated


def verdict(kind: str, text: str, **fields: Any) -> Any:
    return judge(parse_check({"type": kind, **fields}), text)


@given(st.text("ab .", max_size=8), st.text("ab .", max_size=8))
def test_one_text_is_right_but_for_space_and_a_period(answer: str, given_: str) -> None:
    def bare(text: str) -> str:
        return re.sub(r"\s*\.?\s*\Z", "", text.strip()) if text.strip().endswith(".") else text.strip()

    found = verdict("exact", given_, answer=answer)
    assert found.passed == (bare(answer) == bare(given_))


def test_the_first_wrong_letter_is_pointed_at() -> None:
    found = verdict("exact", " table, hose ", answer="table, horse")
    assert not found and " table, hose "[found.span[0] :] == "se "


OLD_EQUATION = re.compile(r"(?<![\w.])\d{1,18}(?:\s*[+-]\s*\d{1,18})+\s*=\s*-?\d{1,18}(?!\d)")


@given(st.text("0123 +-=.x", max_size=40) | st.from_regex(r"(\d{1,3} ?[+=-] ?){0,6}\d{1,19}", fullmatch=True))
def test_equations_are_those_of_a_plain_expression(text: str) -> None:
    found = list(equations(text))
    assert [f.text for f in found] == [m.group() for m in OLD_EQUATION.finditer(text)]
    for equation in found:
        left, right = equation.text.split("=")
        signed = re.findall(r"[+-]?\s*\d+", left)
        assert equation.is_true == (sum(int("".join(s.split())) for s in signed) == int(right))
        assert text[slice(*equation.span)] == equation.text


def test_steps_must_be_enough_and_true() -> None:
    assert verdict("steps", "20 + 30 = 50. 4 + 5 = 9.")
    assert not verdict("steps", "20 + 30 = 50.")
    assert verdict("steps", "20 + 30 = 50.", least=1)
    false = verdict("steps", "20 + 30 = 50. 1 + 1 = 3.")
    assert "20 + 30 = 50. 1 + 1 = 3."[slice(*false.span)] == "1 + 1 = 3"


@pytest.mark.parametrize(
    ("text", "passed"), [("It is 12.", True), ("12.0", True), ("12 or 13", False), ("x12", False), ("", False)]
)
def test_the_last_number(text: str, passed: bool) -> None:
    assert verdict("last_number", text, value=12).passed is passed


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("No, because 3 is smaller than 8.", True),
        ("no. BECAUSE 8 is larger than 3", True),
        ("No, because 3 is larger than 8.", False),
        ("No, because 13 is smaller than 8.", False),
        ("No, because 3 is smaller than 88.", False),
        ("No, 3 is smaller than 8.", False),
        ("Yes, because 3 is smaller than 8.", False),
        ("None, because 3 is smaller than 8.", False),
        ("", False),
    ],
)
def test_a_yes_or_no_needs_a_true_reason(text: str, passed: bool) -> None:
    found = verdict("yes_no", text, yes=False, reason=["3", "smaller", "8"])
    assert found.passed is passed and found.passed == (not found.reason)


def test_a_reason_may_be_a_word() -> None:
    assert verdict("yes_no", "Yes, because 7 ends in 7, so it is odd.", yes=True, reason=["odd"])
    assert not verdict("yes_no", "Yes, because 7 is oddly shaped.", yes=True, reason=["odd"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cat, dog", ""),
        ("- Cat\n- DOG", ""),
        ("a cat and a dog", "'a' is not an animal"),
        ("cat and dog", ""),
        ("cat", "1 items instead of 2"),
        ("cat, cat", "an item is repeated"),
        ("cat, hammer", "'hammer' is not an animal"),
        ("catdog, dog", "'catdog' is not an animal"),
    ],
)
def test_things_of_a_kind(text: str, reason: str) -> None:
    assert verdict("list_items", text, category="animal", count=2).reason == reason


def test_joiners_may_be_forbidden() -> None:
    assert not verdict("list_items", "cat and dog", category="animal", count=2, joiners=[])


def test_a_phrase_names_nothing() -> None:
    assert not verdict("names_one", "The fox says: hello", category="animal", apart_from="The fox says")
    found = verdict("names_one", "The fox says: an Owl", category="animal", apart_from="The fox says")
    assert "The fox says: an Owl"[slice(*found.span)] == "Owl"


def test_categories_have_words_of_their_own_alone() -> None:
    assert all(len(set(words)) == len(words) and all(w.isalpha() for w in words) for words in CATEGORIES.values())


FORMS = [
    ([{"type": "bullets"}], "- b\n- a", "- a\n- b"),
    ([{"type": "json"}], '["b", "a"]', '["a", "b"]'),
    ([{"type": "upper"}], "B, A", "A, B"),
    ([{"type": "begin", "phrase": "Well then"}], "Well then: b, a", "Well then: b"),
    ([{"type": "end", "phrase": "The end"}], "b, a. The end!", "b. The end"),
    ([{"type": "upper"}, {"type": "begin", "phrase": "IN SHORT"}], "IN SHORT: B, A", "IN SHORT: B A"),
    ([{"type": "json"}], '["b", "a"]', "not JSON"),
    ([{"type": "json"}], '["b", "a"]', "[" * 900 + "]" * 900),
    ([{"type": "end", "phrase": "a long phrase"}], "b, a a long phrase", "b"),
]


@pytest.mark.parametrize(("forms", "good", "bad"), FORMS)
def test_the_content_of_a_form(forms: list[dict[str, str]], good: str, bad: str) -> None:
    fields: dict[str, Any] = {"forms": forms, "reference": "b, a", "plain": {"type": "exact", "answer": "b, a"}}
    assert verdict("content", good, **fields)
    found = verdict("content", bad, **fields)
    assert not found and found.reason


def test_json_items_may_be_laid_out_freely_but_not_be_others() -> None:
    assert verdict("json_items", ' [ "a",\n"b"]', items=["a", "b"])
    for wrong in ('["a"]', '["a", "b", 1]', '{"a": "b"}', "a, b", '["b", "a"]', ""):
        assert not verdict("json_items", wrong, items=["a", "b"])


@pytest.mark.parametrize(
    ("text", "number", "box", "says", "final"),
    [
        ("So 3 + 4 = 7.", "7", None, None, "7"),
        (r"Thus \boxed{\frac{1}{2}} it is, 9", "9", r"\frac{1}{2}", None, r"\frac{1}{2}"),
        ("The answer is 3.5.\nBye 1", "1", None, "3.5", "3.5"),
        ("work 5\n#### 1,234", "234", None, "1,234", "1,234"),
        ("It costs $1,234.50 now", "234.50", None, None, "$1,234.50"),
        (r"\boxed{1} then \boxed{2", "2", "1", None, "1"),
        ("No idea", None, None, None, None),
        ("", None, None, None, None),
    ],
)
def test_answers_are_extracted(
    text: str, number: str | None, box: str | None, says: str | None, final: str | None
) -> None:
    for found, wanted in (
        (last_number(text), number),
        (boxed(text), box),
        (stated(text), says),
        (final_answer(text), final),
    ):
        assert (found.text if found else None) == wanted
        assert found is None or text[slice(*found.span)] == found.text


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("A is wrong, so C", "C"),
        (r"A or \boxed{D}", "D"),
        ("I like it", None),
        ("(b)", "B"),
        ("E", None),
        ("", None),
    ],
)
def test_a_choice_is_extracted(text: str, letter: str | None) -> None:
    found = choice(text)
    assert (found.text if found else None) == letter
