"""Instructions that one prompt of the benchmark has each: tables, dates, sorted names, questions."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from itertools import pairwise
from typing import ClassVar

from ift_serve.checks.ifbench.text import bare, sentences, without_punctuation
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.verdict import PASSED, Verdict, failed
from ift_serve.checks.words import listed

_DIGITS = re.compile(r"\d+")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_QUESTION = re.compile(r"Question \d+[.|):;]?")
_OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w")
_SPECIAL = re.compile(r"[^\d\w\s]")
_YEARS = range(1769, 1822)
_DAYS = {4: 30, 6: 30, 9: 30, 11: 30, 2: 29}
_LINES_FROM_ZIMBABWE = 52
_CAPITALS = listed(
    """Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw
    London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb"""
)
"""European capitals above the 45th degree of latitude, from north to south."""


class Multiples(Instruction):
    """The multiples of 7 from 14 to 49, and no other number."""

    id: ClassVar[str] = "custom:multiples"

    def verdict(self, response: str) -> Verdict:
        """Names the numbers."""
        found = _DIGITS.findall(response)
        return (
            PASSED
            if found == [str(n) for n in range(14, 50, 7)]
            else failed(f"the numbers are {', '.join(found)!r:.200}")
        )


class McqCountLength(Instruction):
    """Four questions with five options each, every question longer than the one before, and nothing before them."""

    id: ClassVar[str] = "custom:mcq_count_length"

    def verdict(self, response: str) -> Verdict:
        """Names the question."""
        if not response.startswith("Question"):
            return failed("does not begin with a question")
        questions = [part.strip() for part in _QUESTION.split(response) if part.strip()]
        if len(questions) != 4:
            return failed(f"{len(questions)} questions instead of 4")
        before = -1
        for number, question in enumerate(questions, 1):
            text, options = _question(question)
            if options != 5:
                return failed(f"question {number} has {options} options instead of 5")
            if len(text) <= before:
                return failed(f"question {number} is not longer than the one before")
            before = len(text)
        return PASSED


class ReverseNewline(Instruction):
    """Names on 52 lines or more from Zimbabwe on, in the order from Z to A; accents do not count."""

    id: ClassVar[str] = "custom:reverse_newline"

    def verdict(self, response: str) -> Verdict:
        """Names the first line that is out of order."""
        lines = [line for part in response.split("\n") if (line := bare(part))]
        first = next((place for place, line in enumerate(lines) if "Zimbabwe" in line), None)
        if first is None:
            return failed("has no Zimbabwe")
        names = [_ascii(line) for line in lines[first:]]
        if len(names) < _LINES_FROM_ZIMBABWE:
            return failed(f"{len(names)} lines instead of {_LINES_FROM_ZIMBABWE}")
        wrong = next((after for before, after in pairwise(names) if after > before), None)
        return PASSED if wrong is None else failed(f"{wrong!r:.80} is out of order")


class WordReverse(Instruction):
    """The words stand in reverse order, so that the animal asked for is an eagle bald."""

    id: ClassVar[str] = "custom:word_reverse"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        text = " ".join(reversed(without_punctuation(response.lower()).split()))
        return PASSED if "bald eagle" in text else failed("read backwards, it has no bald eagle")


class CharacterReverse(Instruction):
    """The letters stand in reverse order, so that the animal asked for is an elgae dlab."""

    id: ClassVar[str] = "custom:character_reverse"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        return PASSED if "elgae dlab" in response.lower() else failed("has no elgae dlab")


class SentenceAlphabet(Instruction):
    """Twenty-six sentences that begin with the letters of the alphabet in turn."""

    id: ClassVar[str] = "custom:sentence_alphabet"

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence that begins with another letter."""
        found = sentences(response)
        if len(found) != 26:
            return failed(f"{len(found)} sentences instead of 26")
        for place, (sentence, span) in enumerate(found):
            if sentence[:1].lower()[:1] != chr(ord("a") + place):
                return failed(f"sentence {place + 1} does not begin with {chr(ord('a') + place)!r}", span)
        return PASSED


class EuropeanCapitalsSort(Instruction):
    """European capitals from north to south, with commas between them; accents do not count."""

    id: ClassVar[str] = "custom:european_capitals_sort"

    def verdict(self, response: str) -> Verdict:
        """Names the first capital that is out of place."""
        found = [part.strip() for part in _ascii(response).split(",") if part.strip()]
        if len(found) != len(_CAPITALS):
            return failed(f"{len(found)} capitals instead of {len(_CAPITALS)}")
        wrong = next((name for name, wanted in zip(found, _CAPITALS, strict=True) if name != wanted), None)
        return PASSED if wrong is None else failed(f"{wrong!r:.80} is out of place")


class CsvCity(Instruction):
    """A table of a header and seven rows with five fields."""

    id: ClassVar[str] = "custom:csv_city"

    def verdict(self, response: str) -> Verdict:
        """Names the row."""
        rows = _table(response, ",")
        if rows is None or len(rows) != 8 or rows[0] != ["ID", "Country", "City", "Year", "Count"]:
            return failed("is no table of the header asked for and seven rows")
        return _five_fields(rows[1:])


class CsvSpecialCharacter(Instruction):
    """A table of a header and fourteen rows with five fields, one of them quoted with a special character in it.

    As published, rows after the first with such a field are not looked at.
    """

    id: ClassVar[str] = "custom:csv_special_character"

    def verdict(self, response: str) -> Verdict:
        """Names the row."""
        if not _has_header(response, ",", ("ProductID", "Category", "Brand", "Price", "Stock"), "[ \t]*"):
            return failed("does not begin with the header asked for")
        rows = _table(response.replace('"', '"""'), ",")
        if rows is None or len(rows) != 15:
            return failed("has no fourteen rows")
        for number, row in enumerate(rows[1:], 1):
            if len(row) != 5:
                return failed(f"row {number} has {len(row)} fields instead of 5")
            if any(map(_has_quoted_special, row)):
                return PASSED
        return failed("no field is quoted and has a special character")


class CsvQuotes(Instruction):
    """A table with tabs of a header and three rows with five fields, all of them quoted."""

    id: ClassVar[str] = "custom:csv_quotes"

    def verdict(self, response: str) -> Verdict:
        """Names the row."""
        if not _has_header(response, "\t", ("StudentID", "Subject", "Grade", "Semester", "Score"), " *"):
            return failed("does not begin with the header asked for")
        rows = _table(response.replace('"', '"""'), "\t")
        if rows is None or len(rows) != 4:
            return failed("has no three rows")
        for number, row in enumerate(rows):
            quoted = [bool(field.strip()) and field.strip()[0] == field.strip()[-1] == '"' for field in row]
            if len(row) != 5 or not all(quoted):
                return failed(f"row {number} has not five fields in quotation marks")
        return PASSED


class DateFormatList(Instruction):
    """Dates of Napoleon's lifetime, written year-month-day, with commas between them."""

    id: ClassVar[str] = "custom:date_format_list"

    def verdict(self, response: str) -> Verdict:
        """Names the first date that is none."""
        for part in response.strip().split(","):
            found = _DATE.fullmatch(part.strip())
            if found is None:
                return failed(f"{part.strip()!r:.80} is no date")
            year, month, day = map(int, found.groups())
            if year not in _YEARS or month > 12 or day > _DAYS.get(month, 31 if month else 99):
                return failed(f"{found.group()} is not in Napoleon's lifetime")
        return PASSED


def _question(text: str) -> tuple[str, int]:
    """The question itself, without its options, and how many of these there are."""
    asked, options = "", 0
    parts = []
    for line in map(str.strip, text.split("\n")):
        if _OPTION.match(line):
            options += 1
        elif not options:
            parts.append(line)
    asked = " ".join(parts).strip()
    return asked, options


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _table(text: str, delimiter: str) -> list[list[str]] | None:
    """The rows; None where a field is longer than any reader takes it."""
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return None


def _five_fields(rows: list[list[str]]) -> Verdict:
    number = next((number for number, row in enumerate(rows, 1) if len(row) != 5), None)
    return PASSED if number is None else failed(f"row {number} has {len(rows[number - 1])} fields instead of 5")


def _has_header(text: str, divider: str, names: tuple[str, ...], space: str) -> bool:
    """Whether the first line is the names, each quoted or not, with only ``space`` after a divider."""
    between = re.escape(divider) + space
    pattern = between.join(f'(?:{name}|"{name}")' for name in names)
    return re.fullmatch(pattern, text.split("\n", 1)[0].strip()) is not None


def _has_quoted_special(field: str) -> bool:
    """Whether the first line of a field begins with a quotation mark and has a special character before another."""
    line = field.split("\n", 1)[0]
    return line[:1] == '"' and _SPECIAL.search(line, 1, max(1, line.rfind('"'))) is not None
