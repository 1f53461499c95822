"""Words found by themselves, against Python's regular expressions."""

from __future__ import annotations

import re
import sys

from hypothesis import given
from hypothesis import strategies as st

from ift_serve.checks.words import WordFinder, find_word, fold

LETTERS = "aAbé É_1-'+ ßẞſKkİıσςΣ\n\0\uffff"
texts = st.text(LETTERS, max_size=30) | st.text(max_size=20)
words = st.text(LETTERS, min_size=1, max_size=4).filter(str.strip) | st.text(min_size=1, max_size=4).filter(str.strip)


def by_expression(text: str, word: str) -> list[tuple[int, int]]:
    word = word.strip()
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    return [found.span() for found in re.finditer(before + re.escape(word) + after, text, re.IGNORECASE)]


@given(texts, words, texts)
def test_a_word_is_found_where_an_expression_finds_it(before: str, word: str, after: str) -> None:
    text = before + word + after
    if "\uffff" in text and "\0" in text:
        return
    assert list(WordFinder(text).spans(word)) == by_expression(text, word)


def test_folding_keeps_offsets_and_joins_what_ignoring_case_joins() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    folded = fold(every)
    assert len(folded) == len(every)
    cased = "".join(c for c in every if c.lower() != c or c.upper() != c or fold(c) != c)
    classes: dict[str, set[str]] = {}
    for letter in cased:
        classes.setdefault(fold(letter), set()).add(letter)
    for letter in cased:
        assert classes[fold(letter)] == set(re.findall(re.escape(letter), cased, re.IGNORECASE))


def test_a_word_is_found_from_a_place_on() -> None:
    finder = WordFinder("fox, foxes, FOX")
    assert finder.find("fox") == (0, 3) and finder.find("fox", 1) == (12, 15) and finder.find("fox", 13) is None
    assert find_word("fox", " ") is None
