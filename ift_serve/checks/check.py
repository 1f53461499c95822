"""Base class of checks: a type, its own fields and a verdict on any text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ift_serve.checks.verdict import Span, Verdict


class Check(BaseModel, ABC):
    """One requirement on a response. Subclasses add a literal ``type`` and the fields that it needs.

    A check knows neither where the response came from nor any training record. Its work grows linearly with the
    lengths of the response and of its own fields, whatever they hold, because both may come from strangers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: str

    @abstractmethod
    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Judge a response; ``instruction`` is the prompt that it answers, for the checks that look at it."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("give a string that is not blank")
    return text


Phrase = Annotated[str, AfterValidator(_not_blank)]
"""Text with something other than space in it."""
Count = Annotated[int, Field(ge=1)]
"""A number above zero."""


def inner_span(text: str) -> Span:
    """Where a text begins and ends without the space around it; empty at the end of a blank text."""
    start = len(text) - len(text.lstrip())
    return start, max(start, len(text.rstrip()))
