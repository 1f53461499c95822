"""All 25 instructions by id, and the one place where answers are judged by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from ift_serve.checks.errors import UnknownInstructionError
from ift_serve.checks.ifeval.cases import CapitalWordFrequency, EnglishCapital, EnglishLowercase, ResponseLanguage
from ift_serve.checks.ifeval.combination import RepeatPrompt, TwoResponses
from ift_serve.checks.ifeval.formats import (
    ConstrainedResponse,
    JsonFormat,
    MultipleSections,
    NumberBulletLists,
    NumberHighlightedSections,
    NumberPlaceholders,
    Postscript,
    Title,
)
from ift_serve.checks.ifeval.instruction import Instruction
from ift_serve.checks.ifeval.keywords import (
    EndChecker,
    Existence,
    ForbiddenWords,
    Frequency,
    LetterFrequency,
    NoComma,
    Quotation,
)
from ift_serve.checks.ifeval.lengths import NthParagraphFirstWord, NumberParagraphs, NumberSentences, NumberWords
from ift_serve.checks.ifeval.loose import relaxed
from ift_serve.checks.verdict import Verdict, failed

Column = Literal["published", "repaired"]
COLUMNS: tuple[Column, ...] = ("published", "repaired")
"""Whose decisions are reported: the authors' code as it is, or with its known defects repaired. Never a mixture."""

_TYPES: tuple[type[Instruction], ...] = (
    Existence, Frequency, ForbiddenWords, LetterFrequency, ResponseLanguage, NumberSentences, NumberParagraphs,
    NumberWords, NthParagraphFirstWord, NumberPlaceholders, Postscript, NumberBulletLists, ConstrainedResponse,
    NumberHighlightedSections, MultipleSections, JsonFormat, Title, TwoResponses, RepeatPrompt, EndChecker,
    CapitalWordFrequency, EnglishCapital, EnglishLowercase, NoComma, Quotation,
)  # fmt: skip
INSTRUCTIONS: dict[str, type[Instruction]] = {kind.id: kind for kind in _TYPES}


def parse_instruction(instruction_id: str, arguments: Mapping[str, Any]) -> Instruction:
    """The instruction of an id with its arguments; those that are None are absent, as some readers of files fill them.

    Raises UnknownInstructionError, or ValueError that names the instruction and the argument.
    """
    if instruction_id not in INSTRUCTIONS:
        raise UnknownInstructionError(instruction_id)
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return INSTRUCTIONS[instruction_id].model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise ValueError(f"{instruction_id}: {where}: {found['msg']}") from None


def judge_strict(instruction: Instruction, response: str, column: Column) -> Verdict:
    """Whether a response follows an instruction as it stands; a blank one follows none."""
    if not response.strip():
        return failed("empty answer")
    return instruction.published(response) if column == "published" else instruction.verdict(response)


def judge_loose(instruction: Instruction, response: str, column: Column) -> Verdict:
    """Whether a response or any of its milder readings follows an instruction.

    What fails is explained by the response as it stands. A reading that passes is no part of it that could be shown.
    """
    strict = judge_strict(instruction, response, column)
    if strict or any(judge_strict(instruction, text, column) for text in relaxed(response)[1:]):
        return strict if strict else Verdict(True)
    return strict
