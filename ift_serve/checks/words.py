"""Words found by themselves in a text, whatever their case, in linear time."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from ift_serve.checks.verdict import Span

_EDGE = re.compile(r"\b")
_MARK = "\0"
_SINGLE = {"İ": "i", "ı": "i", "\u1fd3": "\u0390", "\u1fe3": "\u03b0", "\ufb05": "\ufb06"}
"""What no other folding brings to one character."""


@functools.lru_cache(maxsize=4096)
def _fold_letter(letter: str) -> str:
    """One letter for all its cases: what ``re.IGNORECASE`` takes for the same is folded to the same."""
    for folded in (_SINGLE.get(letter, letter.casefold()), letter.upper().casefold(), letter.lower()):
        if len(folded) == 1:
            return folded
    return letter


def listed(text: str) -> tuple[str, ...]:
    """Words that are written down with spaces between them."""
    return tuple(text.split())


def fold(text: str) -> str:
    """The text without its case. Each character stays one, so offsets stay what they are."""
    if text.isascii():
        return text.lower()
    return "".join(map(_fold_letter, text))


class WordFinder:
    """Finds words and phrases in one text.

    A word stands by itself: where it begins or ends with a letter, a digit or an underscore, no other goes on there.
    Every edge between such a character and another gets a mark, so that one plain substring search, which is linear
    in CPython, finds the word with its edges. The mark is NUL; a NUL of the text is read as a noncharacter.
    """

    def __init__(self, text: str) -> None:
        self._marked = _marked(text)

    def find(self, word: str, start: int = 0) -> Span | None:
        """Where the word stands first at or after a character; None where nowhere, or if the word is blank."""
        return next((span for span in self.spans(word) if span[0] >= start), None)

    def spans(self, word: str) -> Iterator[Span]:
        """Every place of the word, from left to right, none overlapping the one before."""
        word = word.strip()
        if not word:
            return
        wanted = _marked(word)
        place = marks = counted = 0
        while (place := self._marked.find(wanted, place)) >= 0:
            # A mark at the beginning of the word stands before its first character.
            marks += self._marked.count(_MARK, counted, place)
            yield place - marks, place - marks + len(word)
            counted = place
            place += len(wanted)


def _marked(text: str) -> str:
    return _EDGE.sub(_MARK, fold(text).replace(_MARK, "\uffff"))


def find_word(text: str, word: str) -> Span | None:
    """Where a word stands first in a text."""
    return WordFinder(text).find(word)
