"""Instructions about marks that a program can find: bullets, highlights, sections, titles, placeholders, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import ClassVar

from ift_serve.checks.ifeval.keywords import Keyword
from ift_serve.checks.ifeval.matching import spans
from ift_serve.checks.instruction import Instruction, Number, Word, compared, exactly
from ift_serve.checks.verdict import PASSED, Span, Verdict, failed, passed

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")
_SINGLE = re.compile(r"\*([^*\n]*)\*")
_DOUBLE = re.compile(r"\*\*([^*\n]*)\*\*")
_NUMBERED = re.compile(r"\s?\d+")
_POSTSCRIPTS = {"P.P.S": re.compile(r"p\.\s?p\.\s?s"), "P.S.": re.compile(r"p\.\s?s\.")}
_SPACE = re.compile(r"\s*")


class NumberPlaceholders(Instruction):
    """At least so many placeholders: square brackets that close on their line."""

    id: ClassVar[str] = "detectable_content:number_placeholders"
    num_placeholders: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        return compared(len(list(_bracketed(response))), "at least", self.num_placeholders, "placeholders")


class Postscript(Instruction):
    """There is a postscript with the marker, in any case."""

    id: ClassVar[str] = "detectable_content:postscript"
    postscript_marker: Keyword

    def verdict(self, response: str) -> Verdict:
        """Points at the marker."""
        marker, text = self.postscript_marker.strip(), response.lower()
        pattern = _POSTSCRIPTS.get(marker)
        found = pattern.search(text) if pattern else None
        span = found.span() if found else None if pattern else next(spans(marker.lower(), text), None)
        if span is None:
            return failed(f"has no postscript that begins with {marker!r}")
        # Small letters of a few capitals are longer than these, and move what follows.
        return passed(span) if len(text) == len(response) else PASSED


class NumberBulletLists(Instruction):
    """Exactly so many bullet points: lines that begin with one star or a dash."""

    id: ClassVar[str] = "detectable_format:number_bullet_lists"
    num_bullets: Number

    def verdict(self, response: str) -> Verdict:
        """Points at the first bullet point that is too many."""
        found = sorted([*_bullets(response, "*"), *_bullets(response, "-")])
        return exactly(len(found), self.num_bullets, "bullet points", found)


class ConstrainedResponse(Instruction):
    """The response contains one of three answers: yes, no, maybe, as sentences."""

    id: ClassVar[str] = "detectable_format:constrained_response"

    def verdict(self, response: str) -> Verdict:
        """Points at the answer."""
        for option in _OPTIONS:
            if (place := response.find(option)) >= 0:
                return passed((place, place + len(option)))
        return failed(f"contains none of {', '.join(_OPTIONS)}")


class NumberHighlightedSections(Instruction):
    """At least so many sections between single or double stars, each on one line and not blank."""

    id: ClassVar[str] = "detectable_format:number_highlighted_sections"
    num_highlights: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        count = sum(bool(found[1].strip()) for pattern in (_SINGLE, _DOUBLE) for found in pattern.finditer(response))
        return compared(count, "at least", self.num_highlights, "highlighted sections")


class MultipleSections(Instruction):
    """At least so many headings made of a word and a number."""

    id: ClassVar[str] = "detectable_format:multiple_sections"
    section_spliter: Word
    num_sections: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: what is missing has no place."""
        word = self.section_spliter.strip()
        return compared(len(list(_headings(response, word))), "at least", self.num_sections, f"sections {word!r}")


class JsonFormat(Instruction):
    """The whole response is JSON, in a code block or not."""

    id: ClassVar[str] = "detectable_format:json_format"

    def verdict(self, response: str) -> Verdict:
        """Points at where it stops being JSON."""
        text = response.strip()
        for fence in _FENCES:
            text = text.removeprefix(fence)
        text = text.removesuffix("```").strip()
        begin = response.find(text) if text else 0
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            place = min(begin + error.pos, len(response))
            return failed(f"not JSON: {error.msg}", (place, min(place + 1, len(response))))
        except (ValueError, RecursionError) as error:
            return failed(f"not JSON: {error}")
        return passed((begin, begin + len(text)))


class Title(Instruction):
    """There is a title between two pairs of angle brackets, on one line and not blank."""

    id: ClassVar[str] = "detectable_format:title"

    def verdict(self, response: str) -> Verdict:
        """Points at the first title."""
        for start, end in _lines(response):
            first, last = response.find("<<", start, end), response.rfind(">>", start, end)
            if 0 <= first < last - 2 and response[first : last + 2].lstrip("<").rstrip(">").strip():
                return passed((first, last + 2))
        return failed("has no title between << and >>")


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _bracketed(text: str) -> Iterator[Span]:
    """Parts from an opening bracket to the next closing one of the same line."""
    for start, end in _lines(text):
        while (first := text.find("[", start, end)) >= 0 and (last := text.find("]", first, end)) >= 0:
            yield first, last + 1
            start = last + 1


def _bullets(text: str, mark: str) -> Iterator[Span]:
    """Lines that begin with a mark after any space, blank lines before them included.

    A star must not be followed by another. Where its line is empty, the next one is its text, as published.
    """
    start = 0
    while start < len(text):
        space = _SPACE.match(text, start)
        assert space is not None
        first = space.end()
        is_bullet = text[first : first + 1] == mark
        after = first + 1
        if mark == "*" and is_bullet:
            is_bullet = after < len(text) and text[after] != "*"
            after += 1
        end = text.find("\n", after if is_bullet else first)
        end = len(text) if end < 0 else end
        if is_bullet:
            yield first, end
        start = end + 1


def _headings(text: str, word: str) -> Iterator[Span]:
    """Places of a word with a number right after it, or after one space."""
    place = 0
    while (place := text.find(word, place)) >= 0:
        number = _NUMBERED.match(text, place + len(word))
        if number is None:
            place += 1
        else:
            yield place, number.end()
            place = number.end()
