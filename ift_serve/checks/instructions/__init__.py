"""Instructions of the benchmarks IFEval and IFBench, with two checkers each: the published one and the repaired one."""

from ift_serve.checks.instruction import Instruction
from ift_serve.checks.instructions.check import BenchmarkInstruction
from ift_serve.checks.instructions.judging import COLUMNS, Column, judge_both, judge_loose, judge_strict
from ift_serve.checks.instructions.prompt import InstructedPrompt, PromptVerdicts
from ift_serve.checks.instructions.registry import INSTRUCTIONS, parse_instruction

__all__ = [
    "COLUMNS", "INSTRUCTIONS", "BenchmarkInstruction", "Column", "InstructedPrompt", "Instruction", "PromptVerdicts",
    "judge_both", "judge_loose", "judge_strict", "parse_instruction",
]  # fmt: skip
