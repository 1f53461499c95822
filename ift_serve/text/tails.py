"""One text with many endings, tokenised without reading its beginning again for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_LONG = 256
"""Characters from which on it is worth it."""
_WORDS = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_SPLITS = {"ByteLevel", "Metaspace", "BertPreTokenizer", "Whitespace", "WhitespaceSplit"}

TokenIds = Callable[[Sequence[str], bool], list[list[int]]]
"""Ids of texts; the second argument tells whether they are the beginning, before which special tokens may be added."""


class Tails:
    """Finds where a text can be cut so that what follows does not change the tokens before.

    That is between two words, where the tokenizer's pre-tokenizer always cuts, or where no token of its vocabulary
    reaches over the space between two words (SentencePiece without a pre-tokenizer). Every cut is tried on the text
    itself; where the halves do not give the whole, or the tokenizer is of another kind, every ending is tokenised
    with all that comes before.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        """``fields``: the tokenizer's JSON."""
        self._can_cut = _splits_words(fields["pre_tokenizer"]) or (
            fields["pre_tokenizer"] is None and _no_token_spans_words(fields["model"])
        )
        longest = max((len(token["content"]) for token in fields["added_tokens"]), default=0)
        self._reach = max(_LONG // 2, 2 * longest)

    def token_ids(self, begin: str, ends: Sequence[str], encode: TokenIds) -> list[list[int]]:
        """Ids of ``begin``, and of it with each of the ends."""
        for head, tail in self._cuts(begin) if len(ends) > 1 else ():
            whole, first = encode([begin, head], True)
            if whole == first + encode([tail], False)[0]:
                return [whole, *(first + ids for ids in encode([tail + end for end in ends], False))]
        return encode([begin, *(begin + end for end in ends)], True)

    def _cuts(self, text: str) -> list[tuple[str, str]]:
        """Ways to cut, the space with the tail or left out where the tokenizer puts one before every text."""
        if not self._can_cut or len(text) < _LONG:
            return []
        place = -1
        for match in _WORDS.finditer(text, max(0, len(text) - 8 * self._reach), len(text) - self._reach):
            place = match.start()
        return [] if place <= 0 else [(text[:place], text[place:]), (text[:place], text[place + 1 :])]


def _splits_words(step: dict[str, Any] | None) -> bool:
    """Whether a space between two letters always ends a word, whatever comes behind the second one."""
    if step is None:
        return False
    if step["type"] == "Sequence":
        return any(map(_splits_words, step["pretokenizers"]))
    if step["type"] == "Split":
        # A pattern that looks back could see more than the word it is at.
        return "(?<" not in step["pattern"].get("Regex", "(?<") and not step.get("invert")
    if step["type"] == "Metaspace":
        return bool(step.get("split", True))
    return step["type"] in _SPLITS and bool(step.get("use_regex", True))


def _no_token_spans_words(model: dict[str, Any]) -> bool:
    return model["type"] == "BPE" and not any("\u2581" in piece.lstrip("\u2581") for piece in model["vocab"])
