"""Whether an answer has the form that it must have: its own checks, the recipe's, and marks that are in order."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import ClassVar, Literal

from ift_serve.checks import Check, judge_all
from ift_serve.checks.words import listed
from ift_training.data.quality.filter import Finding, TextFilter
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.requirements import ends_as_asked
from ift_training.data.quality.words import words

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^\n`]*$", re.MULTILINE)
_JSON_FENCE = re.compile(r"^```json[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MOJIBAKE = re.compile("�|Ã[\u0080-¿]|â€[™œ\u009d“”˜]|Â[ £°·]")
_MARKUP = re.compile(
    r"&(?:amp|lt|gt|nbsp|quot|#\d+);|<\|[\w-]+\|>|</?(?:div|span|p|br|html|body|script)\b[^>\n]{0,80}>", re.I
)
_ENDS = frozenset(".!?:;)]}\"'”’»`*>|…。！？_~=-")
_CUT_WORDS = 12
"""Words from which on prose that ends without a mark is cut off; a shorter answer may be a title or a name."""
_OPEN = frozenset(listed("the a an and or but because which of their its my your if than as from into very whose"))
"""Words that no sentence ends with."""
_OPEN_WORDS = 5
_WRONG_MARKS, _WRONG_CHECK = 0.5, 0.0


class Format(TextFilter):
    """0 where a check is failed, 0.5 where marks are not in order or the text is cut off, 1 otherwise.

    ``checks``: what every answer must pass beside the checks of its own record.
    """

    name: ClassVar[str] = "format"
    revision: ClassVar[int] = 2
    good: ClassVar[Literal["high", "low"]] = "high"

    def __init__(self, checks: Sequence[Check] = ()) -> None:
        self._checks = tuple(checks)

    def depends_on(self) -> object:
        """The recipe's checks."""
        return [check.model_dump(mode="json") for check in self._checks]

    def look(self, pair: Pair) -> Finding:
        """Points at what the check points at, or at the wrong mark."""
        verdict = judge_all((*pair.checks, *self._checks), pair.response, pair.asked)
        if not verdict:
            return Finding(_WRONG_CHECK, verdict.reason, verdict.span)
        return next((found for look in _LOOKS if (found := look(pair)) is not None), Finding(1.0))


def _fences(pair: Pair) -> Finding | None:
    opened = list(_FENCE.finditer(pair.response))
    if len(opened) % 2:
        return Finding(_WRONG_MARKS, "a code block is not closed", opened[-1].span())
    for block in _JSON_FENCE.finditer(pair.response):
        try:
            json.loads(block[1])
        except (ValueError, RecursionError) as error:
            return Finding(_WRONG_MARKS, f"a block of JSON is none: {error}", block.span(1))
    return None


def _characters(pair: Pair) -> Finding | None:
    for pattern, what in ((_MOJIBAKE, "wrongly decoded characters"), (_MARKUP, "marks of another format")):
        found = pattern.search(pair.response)
        if found and found.group() not in pair.source:
            return Finding(_WRONG_MARKS, f"{what}: {found.group()!r}", found.span())
    for place, character in enumerate(pair.response):
        if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") and character not in "\n\t\r":
            return Finding(_WRONG_MARKS, f"a character that is no text: {character!r}", (place, place + 1))
    return None


def _end(pair: Pair) -> Finding | None:
    """Prose that stops in the middle of a sentence."""
    text = pair.response.rstrip()
    last = text.rpartition("\n")[2]
    said = words(last)
    if len(said) >= _OPEN_WORDS and said[-1] in _OPEN and text[-1].isalpha():
        return Finding(_WRONG_MARKS, f"ends with {said[-1]!r}", (len(text) - len(last.split()[-1]), len(text)))
    is_prose = len(said) >= _CUT_WORDS and "|" not in last and any(mark in text for mark in ".!?")
    earlier = [line.rstrip() for line in text.split("\n")[:-1] if line.strip()]
    is_list = _is_item(last) or any(line[-1] not in _ENDS and len(line.split()) > 3 for line in earlier)
    is_cut = is_prose and not is_list and text[-1] not in _ENDS and text[-1].isascii()
    if is_cut and not ends_as_asked(pair.asked, text):
        return Finding(_WRONG_MARKS, "ends within a sentence", (len(text) - len(last.split()[-1]), len(text)))
    return None


def _is_item(line: str) -> bool:
    return re.match(r"\s*(?:[-*•+#>|]|\(?\w{1,3}[.)-])\s", line) is not None or len(line.split()) <= 3


_LOOKS = (_fences, _characters, _end)
