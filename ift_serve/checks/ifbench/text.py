"""Words and sentences as the checkers of IFBench count them."""

from __future__ import annotations

import re
import string

from ift_serve.checks.verdict import Span

PUNCTUATION = string.punctuation
_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)
_EDGES = PUNCTUATION + " "
_KEPT, _DROPPED = "\ue000", "\ue001"
"""A period that ends no sentence, and one that ends a sentence but is not part of it."""
_STARTER = r"(?:Mrs?|Ms|Dr|Prof|Capt|Cpt|Lt|(?:He|She|It|They|Their|Our|We|But|However|That|This)\s|Wherever)"
_INITIALS = re.compile(rf"[A-Z]\.[A-Z]\.(?:[A-Z]\.)?(?= {_STARTER})")
_FIRM_THEN_SENTENCE = re.compile(rf"(?<= )(Inc|Ltd|Jr|Sr|Co)\.(?= {_STARTER})")
_DOTS = re.compile(r"\.{2,}")
_KEEP_BEFORE_DOTS = tuple(
    re.compile(p) for p in (r"(?:Mr|St|Mrs|Ms|Dr)\.", r"\.(?:com|net|org|io|gov|edu|me)", r"[0-9]\.[0-9]")
)
_KEEP = tuple(re.compile(p) for p in (r"(?:[A-Za-z]\.){3}", r"(?:[A-Za-z]\.){2}"))
_KEEP_LAST = tuple(re.compile(p) for p in (r" (?:Inc|Ltd|Jr|Sr|Co)\.", r" [A-Za-z]\."))
_LETTER_ALONE = re.compile(r"\s[A-Za-z]\. ")
_SWAPS = ((".”", "”."), ('."', '".'), ('!"', '"!'), ('?"', '"?'))
_END = re.compile(r"[.?!]")


def without_punctuation(text: str) -> str:
    """The text without ASCII punctuation."""
    return text.translate(_NO_PUNCTUATION)


def bare(word: str) -> str:
    """A word without the punctuation and the blanks around it."""
    return word.strip(_EDGES)


def sentences(text: str) -> list[tuple[str, Span]]:
    """Sentences with their places, as the benchmark's own splitter finds them: by rules about periods, none learnt.

    A sentence is as the splitter leaves it: newlines are blanks, and a closing quotation mark stands before the mark
    that ends the sentence. Blank sentences between two marks are kept, one at the end is not.
    """
    marked, stops = _marked(text)
    cuts = sorted({*stops, *(found.end() for found in _END.finditer(marked))})
    found = []
    start = 0
    for end in [*cuts, len(marked)]:
        sentence = marked[start:end].replace(_KEPT, ".").replace(_DROPPED, "")
        # One blank stands before the text, so that places are one too high.
        left = start + len(sentence) - len(sentence.lstrip()) - 1
        found.append((sentence.strip(), _within(left, left + len(sentence.strip()), len(text))))
        start = end
    if found and not found[-1][0]:
        found.pop()
    return found


def _within(start: int, end: int, length: int) -> Span:
    start = min(max(start, 0), length)
    return start, min(max(end, start), length)


def _marked(text: str) -> tuple[str, list[int]]:
    """The text with every period marked that ends nothing, and places where a sentence ends without a mark.

    The rules are applied one after the other, each to what the ones before have left. None changes the length.
    """
    text = " " + text.replace("\n", " ").replace(_KEPT, "\ufffd").replace(_DROPPED, "\ufffd") + "  "
    for pattern in _KEEP_BEFORE_DOTS:
        text = pattern.sub(_keep, text)
    stops = [found.end() for found in _DOTS.finditer(text)]
    text = _DOTS.sub(_keep, text).replace("Ph.D.", f"Ph{_KEPT}D{_KEPT}")
    text = _LETTER_ALONE.sub(_keep, text)
    stops += [found.end() for found in _INITIALS.finditer(text)]
    for pattern in _KEEP:
        text = pattern.sub(_keep, text)
    stops += [found.end() for found in _FIRM_THEN_SENTENCE.finditer(text)]
    text = _FIRM_THEN_SENTENCE.sub(lambda found: found[1] + _DROPPED, text)
    for pattern in _KEEP_LAST:
        text = pattern.sub(_keep, text)
    for before, after in _SWAPS:
        text = text.replace(before, after)
    return text, stops


def _keep(found: re.Match[str]) -> str:
    return found.group().replace(".", _KEPT)
