"""Instructions about shares: of stop words, of kinds of sentences, of what is taken from a reference."""

from __future__ import annotations

import re
from typing import ClassVar

from ift_serve.checks.ifbench.arguments import Number, Text
from ift_serve.checks.ifbench.text import sentences
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.verdict import PASSED, Verdict, failed
from ift_serve.checks.words import listed

_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    listed(
        """i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
        herself it its itself they them their theirs themselves who whom which what this that these those
        am is are was were be been being have has had having do does did doing can will just should now
        a an the and but if or because as until while of at by for with about against between into through during
        before after above below to from up down in out on off over under again further then once here there when where
        why how all any both each few more most other some such no nor not only own same so than too very
        s t d m o y ll re ve don ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn
        weren won wouldn"""
    )
)
"""Words without content of English, with the parts that short forms such as don't fall into."""
_CLOSERS = "\"'”’»)]}"
_TOLERANCE = 2


class StopWords(Instruction):
    """At most so many per cent of the words are stop words."""

    id: ClassVar[str] = "ratio:stop_words"
    percentage: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        words = _WORD.findall(response.lower())
        if not words:
            return failed("has no words")
        share = 100 * sum(word in _STOP_WORDS for word in words) / len(words)
        return PASSED if share <= self.percentage else failed(f"{share:.1f} % stop words, more than {self.percentage}")


class SentenceType(Instruction):
    """Twice as many sentences that end with a period as ones that end with a question mark.

    The published code counts no sentence that closes with a quotation mark or a bracket, and takes none and none for
    the ratio. The repaired one looks behind closing marks, and wants a question.
    """

    id: ClassVar[str] = "ratio:sentence_type"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        ends = [sentence.rstrip(_CLOSERS + " ")[-1:] for sentence, _ in sentences(response)]
        if "?" not in ends:
            return failed("has no question")
        return self._counted(ends.count("."), ends.count("?"))

    def published(self, response: str) -> Verdict:
        """The very last character of each sentence counts."""
        ends = [sentence[-1:] for sentence, _ in sentences(response)]
        return self._counted(ends.count("."), ends.count("?"))

    @staticmethod
    def _counted(statements: int, questions: int) -> Verdict:
        return PASSED if statements == 2 * questions else failed(f"{statements} statements and {questions} questions")


class SentenceBalance(Instruction):
    """As many sentences end with a period as with a question mark and with an exclamation mark."""

    id: ClassVar[str] = "ratio:sentence_balance"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        ends = [sentence[-1:] for sentence, _ in sentences(response)]
        counts = [ends.count(mark) for mark in ".?!"]
        if len(set(counts)) == 1:
            return PASSED
        return failed("{} statements, {} questions, {} exclamations".format(*counts))


class SentenceWords(Instruction):
    """Three sentences of the same length in characters; as published, words may come twice."""

    id: ClassVar[str] = "ratio:sentence_words"

    def verdict(self, response: str) -> Verdict:
        """Points at the first sentence of another length, or at a fourth."""
        found = sentences(response)
        if len(found) != 3:
            return failed(f"{len(found)} sentences instead of 3", found[3][1] if len(found) > 3 else None)
        lengths = [len(sentence) for sentence, _ in found]
        other = next((span for (_, span), length in zip(found, lengths, strict=True) if length != lengths[0]), None)
        return failed("sentences of {}, {} and {} characters".format(*lengths), other) if other else PASSED


class Overlap(Instruction):
    """So many per cent, two more or less, of the trigrams of characters are also in a reference text."""

    id: ClassVar[str] = "ratio:overlap"
    reference_text: Text
    percentage: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        own, reference = _trigrams(response), _trigrams(self.reference_text)
        if not own:
            return failed("has no three characters")
        share = len(own & reference) / len(own) * 100
        if self.percentage - _TOLERANCE <= share <= self.percentage + _TOLERANCE:
            return PASSED
        return failed(f"{share:.1f} % overlap instead of {self.percentage}")


def _trigrams(text: str) -> set[str]:
    return {text[place : place + 3] for place in range(len(text) - 2)}
