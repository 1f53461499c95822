"""The answer in a path: where it stands, which tokens make it, and how it is compared with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ift_serve.checks.answer_pattern import AnswerPattern, AnswerPatternError
from ift_serve.checks.extraction import Answer, choice, last_line, last_mention, last_written_number
from ift_serve.decoding.answer_tokens import PathText
from ift_serve.decoding.normalized_answers import normalized
from ift_serve.engine.protocol.reasoning import AnswerKind, AnswerSpan
from ift_serve.text.token_texts import DecoderKind, TokenDecoder


class AnswerSpanError(ValueError):
    """A way to find answers that cannot be; ``field`` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """``text``: as it stands in the path; ``key``: as it is compared; ``tokens``: indices into the path."""

    text: str
    key: str
    tokens: range


class AnswerFinder:
    """Finds answers as an ``AnswerSpan`` says. Raises AnswerSpanError where that cannot be done."""

    def __init__(self, span: AnswerSpan, decoder: TokenDecoder) -> None:
        if decoder.kind is DecoderKind.WHOLE:
            raise AnswerSpanError("span", "the tokens of this model's tokenizer have no text of their own")
        self._find = _finder(span)

    def find(self, path: PathText) -> FoundAnswer | None:
        """The answer in a path's text, which is that of its answer, not of its thought; None where there is none."""
        return _found(path, self._find(path.text))

    @staticmethod
    def align(path: PathText, continuation: PathText) -> FoundAnswer | None:
        """The answer that a path states when it is asked to, and where it stood before.

        ``continuation``: what follows the appended prompt. Its first sentence is the answer, and the answer's last
        mention in the path is the span (arXiv 2402.10200, section 2.3); where the path does not have it word for word,
        the continuation itself is.
        """
        answer = _first_sentence(continuation.text)
        if answer is None:
            return None
        return _found(path, last_mention(path.text, answer.text)) or _found(continuation, answer)


def _finder(span: AnswerSpan) -> Callable[[str], Answer | None]:
    if span.kind is AnswerKind.PATTERN:
        try:
            return AnswerPattern(span.pattern).find
        except AnswerPatternError as error:
            raise AnswerSpanError("span.pattern", str(error)) from None
    if span.kind is AnswerKind.NUMBER:
        return last_written_number
    if span.kind is AnswerKind.OPTION:
        letters = span.options.upper()
        if not letters or not all("A" <= letter <= "Z" for letter in letters):
            raise AnswerSpanError("span.options", f"is {span.options!r}; must be letters from A to Z")
        return lambda text: choice(text, letters)
    return last_line


def _found(path: PathText, answer: Answer | None) -> FoundAnswer | None:
    tokens = path.tokens(answer.span) if answer is not None else None
    if answer is None or tokens is None:
        return None
    text = path.text[slice(*answer.span)]
    key = normalized(text)
    return FoundAnswer(text, key, tokens) if key else None


def _first_sentence(text: str) -> Answer | None:
    """The first line that is not blank, without a colon before it and from the full stop on that ends its sentence."""
    begin = len(text) - len(text.lstrip(": \t\r\n"))
    line = text[begin:].split("\n", 1)[0]
    ends = (place for place, letter in enumerate(line) if letter == "." and not line[place + 1 : place + 2].strip())
    answer = line[: next(ends, len(line))].rstrip()
    return Answer(answer, (begin, begin + len(answer))) if answer else None
