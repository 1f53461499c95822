"""A prompt of a file shaped as those of IFEval and IFBench, and how an answer to it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ift_serve.checks.instruction import Instruction
from ift_serve.checks.instructions.judging import Column, judge_both
from ift_serve.checks.instructions.registry import parse_instruction
from ift_serve.checks.verdict import Verdict


@dataclass(frozen=True, slots=True)
class PromptVerdicts:
    """Verdicts on one answer, in the order of the prompt's instructions; loosely passed is whatever strictly is."""

    strict: tuple[Verdict, ...]
    loose: tuple[Verdict, ...]

    @property
    def follows_strictly(self) -> bool:
        """Whether every instruction is followed."""
        return all(self.strict)

    @property
    def follows_loosely(self) -> bool:
        """Whether every instruction is followed by some reading of the answer."""
        return all(self.loose)


@dataclass(frozen=True, slots=True)
class InstructedPrompt:
    """A prompt with the instructions that it contains."""

    key: str
    prompt: str
    instructions: tuple[Instruction, ...]

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> InstructedPrompt:
        """The prompt of a row with ``key``, ``prompt``, ``instruction_id_list`` and ``kwargs``.

        Raises UnknownInstructionError, or ValueError that says what is wrong with the row.
        """
        missing = [name for name in ("prompt", "instruction_id_list", "kwargs") if name not in row]
        if missing:
            raise ValueError(f"a row has no {missing[0]}")
        key, ids, arguments = str(row.get("key", "")), row["instruction_id_list"], row["kwargs"]
        if len(ids) != len(arguments):
            raise ValueError(f"row {key}: {len(ids)} instructions and {len(arguments)} sets of arguments")
        pairs = zip(ids, arguments, strict=True)
        return cls(key, row["prompt"], tuple(parse_instruction(name, given or {}) for name, given in pairs))

    def judge(self, response: str, column: Column) -> PromptVerdicts:
        """Strict and loose verdicts by one checker; the same instructions judge both."""
        pairs = [judge_both(one, response, column) for one in self.instructions]
        return PromptVerdicts(tuple(strict for strict, _ in pairs), tuple(loose for _, loose in pairs))
