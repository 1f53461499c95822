"""What an English instruction asks of the form of its answer, read from its words, and whether an answer has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ift_serve.checks.forms import Json
from ift_serve.checks.language.sentences import sentence_spans
from ift_serve.checks.words import find_word, listed
from ift_training.data.quality.words import NUMBER_WORDS, numbers, words

_NUMBER = r"(\d{1,4}|" + "|".join(word for word in NUMBER_WORDS if word != "zero") + r"|an?)"
_SEVERAL = r"(\d{1,4}|" + "|".join(word for word in NUMBER_WORDS if word not in ("zero", "one")) + ")"
_QUOTED = r"[\"“']([^\"“”'\n]{1,60})[\"”']"
_OF_EACH = re.compile(r"\b(?:each|every|per|respectively)\b", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*•+]|\(?(?:\d{1,3}|[A-Za-z])[.)])\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*\(?\d{1,3}[.)]\s+\S", re.MULTILINE)
_PARTS = re.compile(r",\s+|;\s+|\s+and\s+|\n")
_FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_CODE = re.compile(
    r"```|[=<>{}\\]|^\s*(?:def|class|import|from|return|public|function|const|let|var|select|#include)\b|[;{}]\s*$|\w+\([^)]*\)",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that is asked for. missed: what is wrong with an answer, in words; empty where nothing is."""

    name: str
    missed: Callable[[str], str]


def requirements(instruction: str) -> list[Requirement]:
    """All that the instruction asks for and that can be told by its words. An unclear wording asks for nothing.

    What is asked of each of several parts is not asked of the whole, and cannot be told.
    """
    if _OF_EACH.search(instruction):
        return []
    return [found for reader in _READERS for found in reader(instruction)]


def _count(text: str) -> int:
    text = text.lower()
    if text in ("a", "an"):
        return 1
    return int(text) if text.isdigit() else int(NUMBER_WORDS[text])


_AT_MOST = re.compile(
    rf"(?:at most|up to|under|within|maximum of|max\.?) {_NUMBER} words"
    rf"|\b{_NUMBER} words or (?:fewer|less)|\b{_NUMBER} words (?:at most|maximum|max)\b",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(rf"(?:at least|minimum of) {_NUMBER} words|\b{_NUMBER} words or more", re.IGNORECASE)
_THAN = re.compile(
    rf"((?:\b(?:no|not|never|without)|n['’]t)(?: \w+){{0,2}} )?\b(more|fewer|less) than {_NUMBER} words", re.IGNORECASE
)
"""A negation turns it around, also before a verb: *do not use more than ten words*."""
_SENTENCES = re.compile(
    rf"\b(?:in|with|write|using|of|exactly|give|as)\s+(?:exactly |only |just )?{_NUMBER}(?: \w+)? sentences?\b"
    rf"|\b{_NUMBER}[- ]sentence\b",
    re.IGNORECASE,
)


def _lengths(instruction: str) -> Iterator[Requirement]:
    for match in _AT_MOST.finditer(instruction):
        yield Requirement("at most so many words", partial(_too_many_words, _first_count(match)))
    for match in _AT_LEAST.finditer(instruction):
        yield Requirement("at least so many words", partial(_too_few_words, _first_count(match)))
    for match in _THAN.finditer(instruction):
        if (match[2].lower() == "more") == (match[1] is None):
            yield Requirement("at least so many words", partial(_too_few_words, _count(match[3])))
        else:
            yield Requirement("at most so many words", partial(_too_many_words, _count(match[3])))
    for match in _SENTENCES.finditer(instruction):
        yield Requirement("so many sentences", partial(_other_sentences, _first_count(match)))


def _first_count(match: re.Match[str]) -> int:
    return _count(next(group for group in match.groups() if group))


def _too_many_words(most: int, response: str) -> str:
    found = len(response.split())
    return f"{found} words where at most {most} are asked for" if found > most else ""


def _too_few_words(least: int, response: str) -> str:
    found = len(response.split())
    return f"{found} words where at least {least} are asked for" if found < least else ""


def _other_sentences(wanted: int, response: str) -> str:
    found = len(sentence_spans(response))
    return f"{found} sentences where {wanted} are asked for" if found != wanted else ""


_THINGS = (
    r"(?:reasons?|ways?|examples?|tips?|ideas?|steps?|facts?|items?|things?|points?|questions?|names?|words?|titles?"
    r"|rules?|causes?|benefits?|advantages?|differences?|uses?|kinds?|types?|animals?|foods?|tools?|synonyms?)"
)
_LIST = re.compile(
    rf"\b(?:list|name|give(?: me)?|suggest|write|find|provide)\s+(?:exactly |the )?{_SEVERAL}\s+"
    rf"(?:\w+\s+){{0,2}}{_THINGS}\b",
    re.I,
)
_BULLETS = re.compile(
    r"\b(?:as|in|into|using|use|with) (?:\w+ ){0,2}?(?:bullet(?:ed)?[ -](?:points?|lists?)|bullets)\b", re.I
)
_NUMBERED_LIST = re.compile(r"\bnumbered list\b|\bnumber (?:the|each) ", re.I)
_JSON = re.compile(r"\b(?:as|in|return|output|valid|answer with|give) (?:\w+ ){0,2}json\b", re.I)
_CODE_WANTED = re.compile(
    r"(?:^|[.!?:]\s+|\bplease |\byou to )(?:write|give me|implement|create)(?: an?| the| some)?(?: \w+){0,2} "
    r"(?:function|program|script|code|query|regex)\b(?! names?\b)",
    re.I,
)
_UPPER = re.compile(r"\b(?:in (?:all )?(?:capital letters|capitals|uppercase|upper case)|all caps)\b", re.I)
_LOWER = re.compile(r"\bin (?:all )?(?:lowercase|lower case|small letters)\b", re.I)
_HAIKU = re.compile(r"\bhaiku\b", re.I)
_TABLE = re.compile(r"\b(?:as|in|make|draw) a (?:markdown )?table\b", re.I)


def _forms(instruction: str) -> Iterator[Requirement]:
    if match := _LIST.search(instruction):
        wanted = _count(match[1])
        yield Requirement("so many items", lambda r: _missing_items(r, wanted))
    if _BULLETS.search(instruction):
        yield Requirement("bullet points", lambda r: "" if _ITEM.search(r) else "no bullet points")
    if _NUMBERED_LIST.search(instruction):
        yield Requirement("a numbered list", lambda r: "" if _NUMBERED.search(r) else "no numbered list")
    if _JSON.search(instruction):
        yield Requirement("JSON", _no_json)
    if _CODE_WANTED.search(instruction):
        yield Requirement("code", lambda r: "" if _CODE.search(r) else "no code")
    if _UPPER.search(instruction):
        yield Requirement("capital letters", lambda r: "small letters" if any(c.islower() for c in r) else "")
    if _LOWER.search(instruction):
        yield Requirement("small letters", lambda r: "capital letters" if any(c.isupper() for c in r) else "")
    if _TABLE.search(instruction):
        yield Requirement("a table", lambda r: "" if "|" in r or "\t" in r else "no table")
    if _HAIKU.search(instruction):
        yield Requirement("three lines", _no_haiku)


def _no_haiku(response: str) -> str:
    found = sum(bool(line.strip()) for line in response.splitlines())
    return f"{found} lines where a haiku has three" if found != 3 else ""


def _missing_items(response: str, wanted: int) -> str:
    """Items may be lines, marked or not, sentences, or parts between commas: the count that fits is taken.

    Of prose in one line no more can be told than that it has too few parts.
    """
    lines = [line for line in response.splitlines() if line.strip()]
    marked = len(_ITEM.findall(response))
    if marked:
        return "" if marked == wanted else f"{marked} items where {wanted} are asked for"
    parts = [part for part in _PARTS.split(response) if part.strip()]
    if wanted in (len(lines), len(sentence_spans(response))) or (len(lines) < 2 and len(parts) >= wanted):
        return ""
    return f"{max(len(lines), len(parts))} items where {wanted} are asked for"


def _no_json(response: str) -> str:
    fenced = _FENCE.search(response)
    verdict = Json().verdict(fenced[1] if fenced else response)
    return "" if verdict else verdict.reason


_WHOLE_TEXT = re.compile(
    r"\b(?:write|compose|create|produce|draft|tell|provide|give|share|invent|make up)\b"
    r"(?: (?:me|us|him|her|them|someone))?"
    r"(?: (?:an?|the|your(?: own)?|another|some))?(?: [\w-]+){0,3}? "
    r"(story|stories|poem|song|lyrics|letter|essay|speech|article|recipe|anecdote|report|dialogue|blog post)\b"
    r"(?![- ](?:titles?|names?|ideas?|prompts?|starters?|genres?|topics?|themes?|hooks?|headlines?)\b)",
    re.I,
)
_PART_OF_TEXT = re.compile(
    r"\b(?:titles?|names?|headline|sentences?|lines?|words?|opening|ending|greeting|sign-off|summar\w+|classify|genre|rate"
    r"|templates?|outline|plot|identify|continue|edit|rewrite|correct|translate)\b|^\s*(?:which|what|who|whether|is|does)\b",
    re.I,
)
_WHOLE_LEAST = 12
"""Words of the shortest text that anyone would call one of these."""


def _whole_texts(instruction: str) -> Iterator[Requirement]:
    """A story, a letter or the like, where nothing in the instruction speaks of a part of one or of another text."""
    match = _WHOLE_TEXT.search(instruction)
    if match and not _PART_OF_TEXT.search(instruction):
        kind = match[1].lower()
        yield Requirement("a whole text", lambda r: _fragment(r, kind))


def _fragment(response: str, kind: str) -> str:
    found = len(response.split())
    return f"{found} words where {kind} is asked for" if found < _WHOLE_LEAST else ""


_YES_NO = re.compile(
    r"\b(?:answer|reply|respond)(?: only)?(?: with)? [\"'“]?yes[\"'”]? or [\"'“]?no\b|\byes or no\b", re.I
)
_COUNTED = re.compile(
    r"^\s*how (?:many|much|old|tall|long|far)\b|\b(?:in|of) (?:which|what) year\b|\bwhat year\b", re.I
)
_CHOICE = re.compile(
    r"\b(?:classify|label|categori[sz]e)\b[^.?!\n]{0,80}?\b(?:as|into|with)(?: either)? "
    r"([\w' -]{2,60}(?:, [\w' -]{2,40}){0,9},? or [\w'-]{2,30})",
    re.I,
)


def _answers(instruction: str) -> Iterator[Requirement]:
    if _YES_NO.search(instruction):
        yield Requirement("yes or no", lambda r: "" if {"yes", "no"} & set(words(r)[:4]) else "neither yes nor no")
    if _COUNTED.search(instruction):
        yield Requirement(
            "a number", lambda r: "" if numbers(r) or "one" in words(r) or "no" in words(r)[:3] else "no number"
        )
    if match := _CHOICE.search(instruction):
        options = [o.strip().removeprefix("or ").strip() for o in re.split(r",| or ", match[1]) if o.strip()]
        if len(options) > 1:
            yield Requirement(
                "one of the options",
                lambda r: "" if any(find_word(r, o) for o in options) else f"none of {', '.join(options)}",
            )


_INCLUDE = re.compile(
    rf"\b(?:includ(?:e|ing)|us(?:e|ing)|mention(?:ing)?|contain(?:s|ing)?) the (?:words?|phrase) {_QUOTED}", re.I
)
_AVOID = re.compile(
    r"\b(?:do not|don't|without|avoid|never)\s+(?:us(?:e|ing)|includ(?:e|ing)|mention(?:ing)?|writ(?:e|ing))?\s*"
    rf"the (?:word|phrase) {_QUOTED}",
    re.I,
)
_BEGIN = re.compile(
    rf"\b(?:begin|start)(?: your (?:answer|response))? with (?:the (?:word|phrase|words) )?{_QUOTED}", re.I
)
_END = re.compile(
    rf"\b(?:end|finish)(?: your (?:answer|response))? with (?:the (?:word|phrase|words) )?{_QUOTED}", re.I
)
_MARKS = " \t\n\"'“”.,!"


def _phrases(instruction: str) -> Iterator[Requirement]:
    avoided = [match.span() for match in _AVOID.finditer(instruction)]
    for match in _AVOID.finditer(instruction):
        yield Requirement("a word left out", partial(_has_word, match[1]))
    for match in _INCLUDE.finditer(instruction):
        if not any(start <= match.start() < end for start, end in avoided):
            yield Requirement("a word", partial(_has_no_word, match[1]))
    for match in _BEGIN.finditer(instruction):
        yield Requirement("a beginning", partial(_begins_otherwise, match[1]))
    for match in _END.finditer(instruction):
        yield Requirement("an ending", partial(_ends_otherwise, match[1]))


def ends_as_asked(instruction: str, response: str) -> bool:
    """Whether the instruction says what the answer ends with, and it does."""
    return any(not _ends_otherwise(match[1], response) for match in _END.finditer(instruction))


def _has_word(word: str, response: str) -> str:
    return f"has the word {word!r}" if find_word(response, word) else ""


def _has_no_word(word: str, response: str) -> str:
    return "" if find_word(response, word) else f"has no word {word!r}"


def _begins_otherwise(phrase: str, response: str) -> str:
    return "" if _bare(response).startswith(_bare(phrase)) else f"does not begin with {phrase!r}"


def _ends_otherwise(phrase: str, response: str) -> str:
    return "" if _bare(response).endswith(_bare(phrase)) else f"does not end with {phrase!r}"


def _bare(text: str) -> str:
    return text.strip(_MARKS).casefold()


_LANGUAGES = dict(
    pair.split("=")
    for pair in listed(
        """french=fr german=de spanish=es italian=it portuguese=pt dutch=nl swedish=sv polish=pl russian=ru turkish=tr
        arabic=ar hindi=hi japanese=ja korean=ko greek=el finnish=fi danish=da czech=cs"""
    )
)
_LANGUAGE = re.compile(rf"\b(?:in|into|to) ({'|'.join(_LANGUAGES)})\b", re.I)
_TRANSLATION = re.compile(r"\b(?:translate|answer|write|reply|respond|say|summari[sz]e|describe|explain)\b", re.I)
_LEAST_LETTERS = 40
"""Of an answer whose language is looked at: that of a few words is a guess."""


def _languages(instruction: str) -> Iterator[Requirement]:
    match = _LANGUAGE.search(instruction)
    if match and _TRANSLATION.search(instruction):
        name, code = match[1].capitalize(), _LANGUAGES[match[1].lower()]
        yield Requirement("a language", lambda r: _other_language(r, name, code))


def _other_language(response: str, name: str, code: str) -> str:
    from ift_serve.checks.language.identification import language_of

    if sum(character.isalpha() for character in response) < _LEAST_LETTERS:
        return ""
    found = language_of(response)
    return "" if found in (code, None) else f"is not {name}"


_READERS: tuple[Callable[[str], Iterator[Requirement]], ...] = (
    _lengths,
    _forms,
    _whole_texts,
    _answers,
    _phrases,
    _languages,
)
