"""The instructions of all benchmarks by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ift_serve.checks.errors import UnknownInstructionError
from ift_serve.checks.ifbench import IFBENCH
from ift_serve.checks.ifeval import IFEVAL
from ift_serve.checks.instruction import Instruction

INSTRUCTIONS: dict[str, type[Instruction]] = {**IFEVAL, **IFBENCH}


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
