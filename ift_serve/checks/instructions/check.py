"""An instruction of a benchmark as a check among others."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from ift_serve.checks.check import Check
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.instructions.judging import Column, judge_loose, judge_strict
from ift_serve.checks.instructions.registry import parse_instruction
from ift_serve.checks.verdict import Verdict


class BenchmarkInstruction(Check):
    """The response follows an instruction of IFEval or IFBench.

    kwargs: its arguments, as the benchmark's files name them. column: by whose checker. loose: milder readings of the
    response count too.
    """

    type: Literal["instruction"] = "instruction"
    instruction_id: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    column: Column = "repaired"
    loose: bool = False
    _instruction: Instruction = PrivateAttr()

    @model_validator(mode="after")
    def _parsed(self) -> Self:
        self._instruction = parse_instruction(self.instruction_id, self.kwargs)
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """As the instruction's class says it."""
        judge = judge_loose if self.loose else judge_strict
        return judge(self._instruction, response, self.column)
