"""One generated instruction, and what a family of them can do."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["factual", "reasoning", "creative"]
KINDS: tuple[Kind, ...] = ("factual", "reasoning", "creative")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a response does what was asked; if not, why, and the offending characters where there are any."""

    passed: bool
    reason: str = ""
    span: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self.passed


PASSED = Verdict(True)


@dataclass(frozen=True, slots=True)
class Example:
    """An instruction with an optional context and a reference answer.

    ``key`` names the combination asked for: two examples with one key ask the same thing in other words, and
    splits are made over keys. ``facts`` is what the checker needs (JSON values only). ``constraints`` are the
    specifications of requirements added on top of the family's own.
    """

    family: str
    kind: Kind
    instruction: str
    context: str
    output: str
    key: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    constraints: tuple[Mapping[str, Any], ...] = ()

    @property
    def prompt(self) -> str:
        """Instruction and context as one user message."""
        return f"{self.instruction}\n\n{self.context}" if self.context else self.instruction


class Family(ABC):
    """A generator of examples and the judge of responses to them."""

    name: str
    kind: Kind
    is_constraint = False
    """Whether the family tests a requirement on the form of an answer rather than a plain request."""

    @abstractmethod
    def generate(self, rng: random.Random) -> Example:
        """A fresh example; everything random comes from ``rng``."""

    @abstractmethod
    def check(self, example: Example, response: str) -> Verdict:
        """Judge a response by what was asked, whether or not it resembles the reference."""

    def make(self, instruction: str, output: str, key: object, *, context: str = "", **facts: Any) -> Example:
        """An example of this family; ``key`` is prefixed by the family's name."""
        return Example(self.name, self.kind, instruction, context, output, f"{self.name}|{key}", facts)


class ExactFamily(Family):
    """A family whose requests have one right answer."""

    def check(self, example: Example, response: str) -> Verdict:
        """The answer, letter for letter, apart from surrounding space and one final period."""
        expected, given = _bare(example.output), _bare(response)
        if given == expected:
            return PASSED
        first = next((i for i, (a, b) in enumerate(zip(given, expected, strict=False)) if a != b), None)
        start = min(len(given), len(expected)) if first is None else first
        return Verdict(False, f"expected {expected!r}", (start, len(given)))


def _bare(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text.endswith(".") else text
