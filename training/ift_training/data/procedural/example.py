"""One generated instruction, and what a family of them can do."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

from ift_serve.checks import Check
from ift_serve.checks.answers import Exact

Kind = Literal["factual", "reasoning", "creative"]
KINDS: tuple[Kind, ...] = ("factual", "reasoning", "creative")


@dataclass(frozen=True, slots=True)
class Example:
    """An instruction with an optional context and a reference answer.

    ``key`` names the combination asked for: two examples with one key ask the same thing in other words, and
    splits are made over keys. ``checks`` judge any answer by what was asked, whether or not it resembles the reference.
    ``thought``: steps that lead to the answer, empty where none are known; ``conclusion`` is the answer behind them.
    """

    family: str
    kind: Kind
    instruction: str
    context: str
    output: str
    key: str
    checks: tuple[Check, ...]
    thought: str = ""
    conclusion: str = ""

    @property
    def prompt(self) -> str:
        """Instruction and context as one user message."""
        return f"{self.instruction}\n\n{self.context}" if self.context else self.instruction

    def reasoned(self, thought: str, conclusion: str = "") -> Example:
        """The example with the steps to its answer, which is the same behind them unless a ``conclusion`` is given."""
        return replace(self, thought=thought, conclusion=conclusion or self.output)


class Family(ABC):
    """A generator of examples."""

    name: str
    kind: Kind
    is_constraint = False
    """Whether the family tests a requirement on the form of an answer rather than a plain request."""

    @abstractmethod
    def generate(self, rng: random.Random) -> Example:
        """A fresh example; everything random comes from ``rng``."""

    def make(self, instruction: str, output: str, key: object, *checks: Check, context: str = "") -> Example:
        """An example of this family; ``key`` is prefixed by the family's name. Without checks, one answer is right."""
        return Example(
            self.name, self.kind, instruction, context, output, f"{self.name}|{key}", checks or (Exact(answer=output),)
        )
