"""The instructions of the IFEval benchmark with two checkers each: the published one and the repaired one."""

from ift_serve.checks.ifeval.check import IFEval
from ift_serve.checks.ifeval.prompt import InstructedPrompt, PromptVerdicts
from ift_serve.checks.ifeval.registry import COLUMNS, INSTRUCTIONS, Column, judge_loose, judge_strict, parse_instruction

__all__ = [
    "COLUMNS", "INSTRUCTIONS", "Column", "IFEval", "InstructedPrompt", "PromptVerdicts", "judge_loose", "judge_strict",
    "parse_instruction",
]  # fmt: skip
