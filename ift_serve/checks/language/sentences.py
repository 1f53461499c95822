"""Where sentences end, decided as Punkt does it (Kiss and Strunk, 2006, Computational Linguistics 32:4), without data.

What Punkt has learnt from a corpus is in :mod:`ift_serve.checks.language.sentence_rules`: by our own short lists, or as
it is learnt for English.
"""

from __future__ import annotations

import re
from collections import deque

from ift_serve.checks.language.sentence_rules import OWN_RULES, Rules
from ift_serve.checks.verdict import Span

_CHUNK = re.compile(r"\S+")
_INNER = re.compile(r"[.?!](?=[)\";}\]*:@'({\[?!‘’“”«»])")
"""A mark that may end a sentence within a chunk: another mark follows."""
_PART = re.compile(
    r"""
      -{2,}+ | \.{2,}+
    | [^\s("`{\[:;&#*@)}\]\-,]
      (?: (?! [)";}\]*:@'({\[?!‘’“”«»] | -- | \.\. | , (?: \Z | [)";}\]*:@'({\[?!‘’“”«»] | -- | \.\. ) ) \S )*+
    | \S
    """,
    re.VERBOSE,
)
"""Parts of a chunk of text without space: words with their periods, and marks one by one."""
_CLOSING = re.compile(r"[\"')\]}‘’“”«»]++(?:\s+|(?=--)|\Z)")


def sentence_spans(text: str, rules: Rules = OWN_RULES) -> list[Span]:
    """The sentences of a text, from left to right; a text of space alone has none."""
    end_of_text = len(text.rstrip())
    found: list[Span] = []
    start = 0
    for end, following in _breaks(text, rules):
        found.append((start, end))
        start = following
    found.append((start, end_of_text))
    return _with_closing_marks(text, found)


def _breaks(text: str, rules: Rules) -> list[tuple[int, int]]:
    """Ends of sentences, each with the place at which the next one begins."""
    found = []
    chunks = list(_CHUNK.finditer(text))
    for index, chunk in enumerate(chunks):
        following = chunks[index + 1] if index + 1 < len(chunks) else None
        place = _last_candidate(chunk.group(), is_last=following is None)
        if place is None:
            continue
        if place < len(chunk.group()):
            # A mark such as a quotation mark goes on right after the end.
            if _ends(chunk.group()[: place + 1], None, rules):
                found.append((chunk.start() + place, chunk.start() + place))
        elif following is not None and _ends(chunk.group(), following.group(), rules):
            found.append((chunk.end(), following.start()))
    return found


def _last_candidate(chunk: str, *, is_last: bool) -> int | None:
    """Just after the last character of a chunk that may end a sentence; the end of the whole text is none."""
    if not is_last and chunk[-1] in ".?!":
        return len(chunk)
    last = deque(_INNER.finditer(chunk), maxlen=1)
    return last[0].end() if last else None


def _ends(chunk: str, following: str | None, rules: Rules) -> bool:
    """Whether a part before the last of these chunks ends a sentence."""
    parts = _PART.findall(chunk)
    rest = _PART.findall(following) if following is not None else []
    every = parts + rest
    return any(rules.ends_sentence(part, every[index + 1]) for index, part in enumerate(every[:-1]))


def _with_closing_marks(text: str, spans: list[Span]) -> list[Span]:
    """Quotation marks and brackets that close a sentence belong to it, not to the next; blank ones go."""
    found = []
    moved = 0
    for index, (start, end) in enumerate(spans):
        begin = start + moved
        moved = 0
        if index + 1 < len(spans):
            following_start, following_end = spans[index + 1]
            closing = _CLOSING.match(text[following_start:following_end])
            if closing:
                moved = closing.end()
                end = following_start + len(closing.group().rstrip())
        if text[begin:end].strip():
            found.append((begin, end))
    return found
