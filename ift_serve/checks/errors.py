"""Errors raised before anything is judged."""

from __future__ import annotations


class MissingExtraError(ImportError):
    """A check needs a package that is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} is judged by the package {package}, which is not installed: pip install 'ift-serve[{extra}]'"
        )


class UnknownInstructionError(ValueError):
    """A benchmark names an instruction that there is no checker for; passing it over would pass every answer."""

    def __init__(self, instruction_id: str) -> None:
        super().__init__(f"there is no checker for the instruction {instruction_id!r:.200}")
