"""Answers that say the same are one, and others are not."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.decoding.normalized_answers import normalized


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,200.0", "1200"),
        ("0.5", "1/2"),
        (".5", "0.50"),
        ("-0", "0"),
        ("+7", "7"),
        ("−3", "-3"),
        ("$5", "5 dollars."),
        ("50%", "50 percent"),
        ("60 km/h", "60 kilometres/hour"),
        ("12 Apples", "12 apple"),
        ("(B)", "b."),
        ("  The   Fox. ", "the fox"),
        ("**Paris**", '"paris"'),
        ("ﬁve", "five"),
        ("１２", "12"),
    ],
)
def test_the_same_in_other_letters(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 km", "5 m"),
        ("5 am", "5 pm"),
        ("5", "-5"),
        ("0.5", "5"),
        ("1,2", "12"),
        ("12", "12%"),
        ("$5", "€5"),
        ("1/0", "1"),
        ("a b", "ab"),
        ("3.14.15", "3.14"),
    ],
)
def test_what_differs_stays_different(one: str, other: str) -> None:
    assert normalized(one) != normalized(other)


@given(st.fractions(max_denominator=10_000).filter(lambda f: abs(f) < 10**20))
def test_a_number_is_its_value(value: Fraction) -> None:
    shown = f"{value.numerator}/{value.denominator}"
    assert Fraction(normalized(shown)) == value
    assert normalized(f"{value.numerator:,}.00") == str(value.numerator)


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_very_long_digits_are_text() -> None:
    assert normalized("9" * 10_000) == "9" * 10_000
