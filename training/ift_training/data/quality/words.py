"""Words, numbers and names of English text, for filters that compare what two texts say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ift_serve.checks.language.sentences import sentence_spans
from ift_serve.checks.verdict import Span
from ift_serve.checks.words import listed

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})++(?:\.\d+)?(?![\w])|(?<![\w.])\d++(?:\.\d++)?")
_MARK = re.compile(r"^\s*(?:[-*•+]|\(?(?:\d{1,3}|[A-Za-z])[.)])\s+", re.MULTILINE)
"""What begins an item of a list."""
_REPLY = re.compile(r"^\s*(?:no|yes)\s*[,.:;!]\s*", re.IGNORECASE)
"""An answer to a question before the sentence that says it."""

NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        listed(
            """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
            seventeen eighteen nineteen twenty"""
        )
    )
}
NEGATIONS = frozenset(
    listed("not no never none nobody nothing nowhere neither nor cannot without hardly fails failed refuses refused")
)
STOP_WORDS = frozenset(
    listed(
        """a an the and or but if then so as of in on at by to for from with into onto over under about between than
        that this these those it its he she they him his her their we us our you your i me my is are was were be been
        being am do does did done has have had having will would can could shall should may might must also just very
        too there here what which who whom whose when where why how all any each some such only own same more most
        other because while during before after up down out off again further once not no nor t s d ll re ve m don"""
    )
)
_NOT_NAMES = STOP_WORDS | NEGATIONS | frozenset(NUMBER_WORDS) | frozenset(
    listed(
        """yes please note first second third next finally however therefore moreover monday tuesday wednesday thursday
        friday saturday sunday january february march april june july august september october november december
        english answer summary step ok okay dear"""
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """What one sentence says.

    content: stems of its words without numbers, names and function words. denied: stems of the words that a negation
    stands right before. full_names: its names of two words or more, the last two words of each.
    """

    span: Span
    content: frozenset[str]
    numbers: frozenset[str]
    counted: frozenset[tuple[str, str]]
    names: frozenset[str]
    full_names: frozenset[tuple[str, str]]
    denied: frozenset[str]
    is_negated: bool
    is_question: bool

    @property
    def keys(self) -> frozenset[str]:
        """All that two sentences can have in common."""
        return self.content | self.numbers | self.names


def words(text: str) -> list[str]:
    """The words of a text in small letters, with an apostrophe inside one."""
    return [match.group().casefold().replace("’", "'") for match in _WORD.finditer(text)]


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text, from left to right; the items of a list are sentences too."""
    pieces = list(_pieces(text))
    within = {name for _, piece in pieces for name in _capitals(piece) if not piece.startswith(name)}
    inner = {_plain_name(name) for name in within}
    return [_sentence(span, piece, inner) for span, piece in pieces]


def numbers(text: str) -> frozenset[str]:
    """The numbers of a text, with digits or as words up to twenty, written alike; the counters of a list are none."""
    found = {_plain(match.group()) for match in _NUMBER.finditer(_MARK.sub(" ", text))}
    found.update(NUMBER_WORDS[word] for word in words(text) if word in NUMBER_WORDS and word != "one")
    return frozenset(found)


def stem(word: str) -> str:
    """A word without its commonest English endings: enough to find ``painted`` in ``paints``."""
    word = word.removesuffix("'s")
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word.removesuffix("e") if len(word) > 4 else word


def _sentence(span: Span, piece: str, inner: set[str]) -> Sentence:
    runs = _name_runs(piece, inner)
    own_names = frozenset(name for run in runs for name in run)
    every = words(_REPLY.sub("", piece))
    meaning = [(index, word) for index, word in enumerate(every) if _means(word, own_names)]
    denied = {
        stem(following)
        for index, word in enumerate(every)
        if _negates(word) and (following := next((w for i, w in meaning if i > index), None)) is not None
    }
    return Sentence(
        span,
        frozenset(stem(word) for _, word in meaning),
        numbers(piece),
        frozenset(_counted(piece)),
        own_names,
        frozenset((run[-2], run[-1]) for run in runs if len(run) > 1),
        frozenset(denied),
        sum(map(_negates, every)) % 2 == 1,
        piece.rstrip().endswith("?"),
    )


def _means(word: str, own_names: frozenset[str]) -> bool:
    """Whether a word is part of what a sentence is about."""
    plain = word.removesuffix("'s")
    return not (
        plain in STOP_WORDS or _negates(word) or plain in own_names or word[0].isdigit() or word in NUMBER_WORDS
    )


def _negates(word: str) -> bool:
    return word in NEGATIONS or word.endswith("n't")


def _counted(piece: str) -> Iterator[tuple[str, str]]:
    """Numbers with the stem of a word that comes right after, which is what they count; with two where an adjective
    stands between."""
    found = [match.group() for match in re.finditer(r"\d[\d,.]*\d|\d|[^\W\d_]+|[^\w\s]", piece)]
    for place, token in enumerate(found):
        small = token.casefold()
        number = _plain(token) if token[0].isdigit() else NUMBER_WORDS.get(small) if small != "one" else None
        if number is None:
            continue
        for following in found[place + 1 : place + 3]:
            if not following[0].isalpha() or following.casefold() in STOP_WORDS or following.casefold() in NUMBER_WORDS:
                break
            yield number, stem(following.casefold())


def _pieces(text: str) -> Iterator[tuple[Span, str]]:
    """Sentences without the marks of lists, cut at line ends too."""
    for start, end in sentence_spans(text):
        place = start
        for line in text[start:end].splitlines(keepends=True):
            if line.strip():
                yield (place, place + len(line.rstrip())), _MARK.sub("", line).strip()
            place += len(line)


def _capitals(piece: str) -> Iterator[str]:
    """Words with a capital that are not written in capitals and are no common words."""
    for match in _WORD.finditer(piece):
        word = match.group()
        if word[0].isupper() and not (len(word) > 1 and word.isupper()) and _plain_name(word) not in _NOT_NAMES:
            yield word


def _name_runs(piece: str, inner: set[str]) -> list[list[str]]:
    """Names, each as its words. The first word of a sentence is one where it is one within another sentence, or
    another name follows."""
    runs: list[list[str]] = []
    last = -2
    for match in _WORD.finditer(piece):
        word, plain = match.group(), _plain_name(match.group())
        is_capital = word[0].isupper() and not (len(word) > 1 and word.isupper())
        if not is_capital or plain in _NOT_NAMES or len(plain) < 2:
            continue
        if runs and match.start() == last + 1:
            runs[-1].append(plain)
        else:
            runs.append([plain])
        last = match.end()
    if runs and len(runs[0]) == 1 and _is_first(piece, runs[0][0]) and runs[0][0] not in inner:
        del runs[0]
    return runs


def _is_first(piece: str, name: str) -> bool:
    first = _WORD.search(piece)
    return first is not None and _plain_name(first.group()) == name


def _plain_name(word: str) -> str:
    return word.casefold().replace("’", "'").removesuffix("'s")


def _plain(number: str) -> str:
    text = number.replace(",", "")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.lstrip("0") or "0"
