"""Base class of benchmark instructions: an id, its arguments, and a verdict by each of the two checkers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ift_serve.checks.verdict import PASSED, Span, Verdict, failed

Relation = Literal["less than", "at least"]
Number = Annotated[int, Field(ge=0, le=1_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=20_000)]
"""Long enough for a prompt that is to be repeated."""
Word = Annotated[str, Field(min_length=1, max_length=200)]
"""Short enough that searching it at every character of a response takes no time."""


class Instruction(BaseModel, ABC):
    """One instruction of a benchmark with its arguments.

    Arguments have the names that the benchmark's files use. ``verdict`` is the repaired checker; ``published`` is
    what the authors' code decides, and is another only where that code has a known defect. Neither looks at anything
    but the response, and neither draws at random. Work grows linearly with the response.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: ClassVar[str]

    @abstractmethod
    def verdict(self, response: str) -> Verdict:
        """Judge a response that is not blank."""

    def published(self, response: str) -> Verdict:
        """Judge a response that is not blank as the published code does."""
        return self.verdict(response)


def compared(count: int, relation: Relation, wanted: int, things: str, spans: list[Span] | None = None) -> Verdict:
    """A verdict on a count. spans: where the things are; the first that is too many is pointed at."""
    if relation == "at least":
        return PASSED if count >= wanted else failed(f"{count} {things} instead of at least {wanted}")
    if count < wanted:
        return PASSED
    span = spans[wanted - 1] if spans and 0 < wanted <= len(spans) else None
    return failed(f"{count} {things} instead of less than {wanted}", span)


def exactly(count: int, wanted: int, things: str, spans: list[Span] | None = None) -> Verdict:
    """A verdict on a count that must be met exactly."""
    if count == wanted:
        return PASSED
    span = spans[wanted] if spans and count > wanted and wanted < len(spans) else None
    return failed(f"{count} {things} instead of {wanted}", span)
