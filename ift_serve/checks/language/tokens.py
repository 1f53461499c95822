"""Words and marks of a text, cut as the Penn Treebank does it."""

from __future__ import annotations

import re

from ift_serve.checks.language.sentences import sentence_spans
from ift_serve.checks.verdict import Span

_PART = re.compile(
    r"""
      \.{2,}+ | --
    | (?P<word> (?:
        (?! -- | \.\. | [:,](?:\D|\Z) )   # two dashes, dots, and a colon or comma that no digit follows, part words
        [^\s\[\](){}<>;@#$%&?!*"“”«»‘’„`\u2012-\u2015]
      )++ )
    | `+ | \S
    """,
    re.VERBOSE,
)
_SHORT_FORM = re.compile(r"(?:n't|N'T|'(?:ll|LL|re|RE|ve|VE|[sSmMdD]?))\Z")
_OPENING = re.compile(r"'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_JOINED = {"CANNOT": 3, "GIMME": 3, "GONNA": 3, "GOTTA": 3, "LEMME": 3, "WANNA": 3}
"""Where words that stand for two are cut."""
_CLOSERS = "])}>\"'»”’ \t\n\r"


def token_spans(text: str) -> list[Span]:
    """Words and marks, from left to right. A short form such as ``DON'T`` is two words, ``DO`` and ``N'T``."""
    ends = {_last_letter(text, span) for span in sentence_spans(text)}
    found: list[Span] = []
    for part in _PART.finditer(text):
        start, end = part.span()
        if part["word"] is None:
            found.append((start, end))
            continue
        # Only the period that ends a sentence is a mark of its own.
        period = end in ends and end - start > 1 and text[end - 1] == "."
        found += ((start + a, start + b) for a, b in _cut(text[start : end - period]))
        if period:
            found.append((end - 1, end))
    return found


def capital_words(text: str) -> list[Span]:
    """The words without a small letter and with at least one capital, from left to right."""
    return [(start, end) for start, end in token_spans(text) if text[start:end].isupper()]


def _last_letter(text: str, span: Span) -> int:
    """Where a sentence ends without the quotation marks and brackets that close it."""
    start, end = span
    return start + len(text[start:end].rstrip(_CLOSERS))


def _cut(word: str) -> list[Span]:
    """A word without the mark that opens it and without its short form, and these."""
    found = []
    start = 0
    if _OPENING.match(word):
        found.append((0, 1))
        start = 1
    short = _SHORT_FORM.search(word, start)
    if short and short.group() and short.start() > start:
        return [*found, (start, short.start()), (short.start(), len(word))]
    middle = _JOINED.get(word[start:].rstrip(".").upper())
    if middle:
        return [*found, (start, start + middle), (start + middle, len(word))]
    return [*found, (start, len(word))]
