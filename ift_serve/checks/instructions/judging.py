"""The one place where answers are judged by instructions of a benchmark."""

from __future__ import annotations

from typing import Literal

from ift_serve.checks.instruction import Instruction
from ift_serve.checks.instructions.loose import relaxed
from ift_serve.checks.verdict import Verdict, failed

Column = Literal["published", "repaired"]
COLUMNS: tuple[Column, ...] = ("published", "repaired")
"""Whose decisions are reported: the authors' code as it is, or with its known defects repaired. Never a mixture."""


def judge_strict(instruction: Instruction, response: str, column: Column) -> Verdict:
    """Whether a response follows an instruction as it stands; a blank one follows none."""
    if not response.strip():
        return failed("empty answer")
    return instruction.published(response) if column == "published" else instruction.verdict(response)


def judge_loose(instruction: Instruction, response: str, column: Column) -> Verdict:
    """Whether a response or any of its milder readings follows an instruction; see :func:`judge_both`."""
    return judge_both(instruction, response, column)[1]


def judge_both(instruction: Instruction, response: str, column: Column) -> tuple[Verdict, Verdict]:
    """The strict verdict and the loose one, which passes whenever the strict one does.

    What fails loosely is explained by the response as it stands. A reading that passes is no part of it that could be
    shown.
    """
    strict = judge_strict(instruction, response, column)
    if strict:
        return strict, strict
    readings = relaxed(response)[1:]
    passes = any(judge_strict(instruction, text, column) for text in readings)
    return strict, Verdict(True) if passes else strict
