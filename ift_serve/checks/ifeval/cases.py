"""Instructions about capital and small letters, and about the language of the response."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator

from ift_serve.checks.instruction import Instruction, Number, Relation, compared
from ift_serve.checks.language.identification import language_of
from ift_serve.checks.language.tokens import capital_words
from ift_serve.checks.verdict import PASSED, Verdict, failed
from ift_serve.checks.words import listed

_LANGUAGES = frozenset(
    listed(
        """af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa
        pl pt ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw"""
    )
)


def _known(language: str) -> str:
    if language not in _LANGUAGES:
        raise ValueError(f"{language!r:.80} is no language that can be told apart")
    return language


Language = Annotated[str, AfterValidator(_known)]
"""An ISO 639-1 code that the identifier has a profile of."""
_ENGLISH = "en"


class ResponseLanguage(Instruction):
    """The response is in a language, as a statistical identifier sees it; text without letters passes."""

    id: ClassVar[str] = "language:response_language"
    language: Language

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        return _is_in(self.language, response)


class EnglishCapital(Instruction):
    """The response is English without a small letter.

    The published code asks the identifier about the capitals as they are, and it passes words in capitals over, so
    the answer stands on what little is left. The repaired one asks about the same text in small letters.
    """

    id: ClassVar[str] = "change_case:english_capital"

    def verdict(self, response: str) -> Verdict:
        """Points at the first small letter."""
        return _capitals(response) and _is_in(_ENGLISH, response.lower())

    def published(self, response: str) -> Verdict:
        """The language of the text in capitals."""
        return _capitals(response) and _is_in(_ENGLISH, response)


class EnglishLowercase(Instruction):
    """The response is English without a capital letter."""

    id: ClassVar[str] = "change_case:english_lowercase"

    def verdict(self, response: str) -> Verdict:
        """Points at the first capital letter."""
        if response.islower():
            return _is_in(_ENGLISH, response)
        place = next((i for i, letter in enumerate(response) if letter.isupper() or _is_titlecase(letter)), None)
        return failed("has no small letters") if place is None else failed("has a capital", (place, place + 1))


class CapitalWordFrequency(Instruction):
    """Less or at least so many words are all capitals."""

    id: ClassVar[str] = "change_case:capital_word_frequency"
    capital_frequency: Number
    capital_relation: Relation

    def verdict(self, response: str) -> Verdict:
        """Points at the first such word that is too many."""
        found = capital_words(response)
        return compared(len(found), self.capital_relation, self.capital_frequency, "words in capitals", found)


def _capitals(response: str) -> Verdict:
    if response.isupper():
        return PASSED
    place = next((i for i, letter in enumerate(response) if letter.islower() or _is_titlecase(letter)), None)
    return failed("has no capitals") if place is None else failed("has a small letter", (place, place + 1))


def _is_titlecase(letter: str) -> bool:
    """Whether a letter is neither small nor a capital but both, as one character of few alphabets is."""
    return letter.istitle() and not letter.isupper()


def _is_in(language: str, text: str) -> Verdict:
    found = language_of(text)
    return PASSED if found in (language, None) else failed(f"is in {found!r}, not in {language!r}")
