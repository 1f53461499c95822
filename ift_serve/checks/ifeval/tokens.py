"""Words in capitals, with text cut into words as the Penn Treebank does it."""

from __future__ import annotations

import re

from ift_serve.checks.verdict import Span

_PIECE = re.compile(
    r"""
      \.{2,}+ | -{2,}+
    | (?:
        (?! -- | \.\. | [:,](?:\D|\Z) )   # two dashes, dots, and a colon or comma that no digit follows, part words
        [^\s\[\](){}<>;@#$%&?!*"“”«»‘’„`\u2012-\u2015]
      )++
    """,
    re.VERBOSE,
)
_CONTRACTION = re.compile(r"(?:n't|N'T|'(?:ll|LL|re|RE|ve|VE|[sSmMdD]))\Z")
_JOINED = {"CANNOT": 3, "GIMME": 3, "GONNA": 3, "GOTTA": 3, "LEMME": 3, "WANNA": 3}
"""Where words that stand for two are cut."""


def capital_words(text: str) -> list[Span]:
    """The words without a small letter and with at least one capital, from left to right.

    A short form such as ``DON'T`` is two words, ``DO`` and ``N'T``.
    """
    found = []
    for piece in _PIECE.finditer(text):
        for start, end in _cut(piece.group()):
            if piece.group()[start:end].isupper():
                found.append((piece.start() + start, piece.start() + end))
    return found


def _cut(piece: str) -> list[Span]:
    """A piece without its short form, and the short form."""
    bare = piece.rstrip(".")
    short = _CONTRACTION.search(bare)
    if short and short.start():
        return [(0, short.start()), (short.start(), len(piece))]
    middle = _JOINED.get(bare.upper())
    return [(0, middle), (middle, len(piece))] if middle else [(0, len(piece))]
