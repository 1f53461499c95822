"""Where sentences end, decided as Punkt does it (Kiss and Strunk, 2006, Computational Linguistics 32:4), without data.

Punkt learns abbreviations and the words that begin sentences from a corpus. Which few of them matter in answers is
written down here instead, so that nothing is downloaded and the same text always has the same sentences.
"""

from __future__ import annotations

import re
from collections import deque

from ift_serve.checks.verdict import Span
from ift_serve.checks.words import listed

_ABBREVIATIONS = frozenset(
    listed(
        """a.m p.m u.s u.k u.n u.s.a d.c j.k n.y l.a a.d ph.d jr sr mr mrs ms dr prof gen col lt sen rep reps st ave
        ft vs inc ltd co corp bros jan feb aug sept oct nov dec tues wed fri c f h l m n r s t v w"""
    )
)
"""Without the final period, in small letters. Punkt's English model knows neither e.g. nor etc."""
_STARTERS = frozenset(
    listed(
        """most he she it they this these so both since when while although however instead nevertheless moreover in
        if the there thus yet but even many some i indeed"""
    )
)
"""Words that begin a new sentence after an abbreviation or dots, when written with a capital."""
_SMALL = _STARTERS | frozenset(
    listed(
        """a an that those we you his her its their our my your on at for with and as after before here then what who
        how why where also all each one such from by to of no not now first second finally next because until once
        is are was were do does did have has had can could will would should may might let please overall"""
    )
)
"""Words so often written small that a capital after a single letter begins a sentence."""
_NO_BEGINNING = frozenset(";:,.!?")
_CHUNK = re.compile(r"\S+")
_CANDIDATE = re.compile(r"[.?!](?=[)\";}\]*:@'({\[?!‘’“”«»]|\Z)")
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
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*\.?\Z")
_INITIAL = re.compile(r"[^\W\d]\.\Z")


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a text, from left to right; a text of space alone has none."""
    end_of_text = len(text.rstrip())
    found: list[Span] = []
    start = 0
    for end, following in _breaks(text):
        found.append((start, end))
        start = following
    found.append((start, end_of_text))
    return _with_closing_marks(text, found)


def _breaks(text: str) -> list[tuple[int, int]]:
    """Ends of sentences, each with the place at which the next one begins."""
    found = []
    chunks = list(_CHUNK.finditer(text))
    for index, chunk in enumerate(chunks):
        following = chunks[index + 1] if index + 1 < len(chunks) else None
        place = _last_candidate(chunk.group())
        if place is None:
            continue
        if place < len(chunk.group()):
            # A mark such as a quotation mark goes on right after the end.
            if _ends(chunk.group()[: place + 1], None):
                found.append((chunk.start() + place, chunk.start() + place))
        elif following is not None and _ends(chunk.group(), following.group()):
            found.append((chunk.end(), following.start()))
    return found


def _last_candidate(chunk: str) -> int | None:
    """Just after the last character of a chunk that may end a sentence."""
    last = deque(_CANDIDATE.finditer(chunk), maxlen=1)
    return last[0].end() if last else None


def _ends(chunk: str, following: str | None) -> bool:
    """Whether a part before the last of these chunks ends a sentence."""
    parts = _PART.findall(chunk)
    rest = _PART.findall(following) if following is not None else []
    every = parts + rest
    return any(_ends_sentence(part, every[index + 1]) for index, part in enumerate(every[:-1]))


def _ends_sentence(part: str, following: str) -> bool:
    if part in (".", "!", "?"):
        return True
    if part.endswith(".."):
        # Dots may trail off in the middle of a sentence.
        return not part.strip(".") and _is_capital_of(following, _STARTERS)
    if not part.endswith("."):
        return False
    bare = part[:-1].lower()
    if bare in _ABBREVIATIONS or bare.rsplit("-", 1)[-1] in _ABBREVIATIONS:
        return len(bare) > 1 and _is_capital_of(following, _STARTERS)
    if _INITIAL.match(part):
        return not following[0].isalnum() or _is_capital_of(following, _SMALL)
    return not (_NUMBER.match(part) and (following[0].islower() or following in _NO_BEGINNING))


def _is_capital_of(word: str, known: frozenset[str]) -> bool:
    """Whether a word is written with a capital and one of the known ones."""
    return word[0].isupper() and word.rstrip(".").lower() in known


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
