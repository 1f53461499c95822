"""What every task has: items with prompts, and verdicts on answers to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ift_serve.checks.verdict import Span, Verdict
from ift_serve.client import Prompt
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.requests import Generation, Request

EMPTY = "empty answer"


@dataclass(frozen=True, slots=True)
class ConstraintVerdict:
    """What became of one constraint. ``family``: the kind of constraint that scores are broken down by."""

    family: str
    passed: bool
    reason: str = ""
    span: Span | None = None

    @classmethod
    def of(cls, family: str, verdict: Verdict) -> ConstraintVerdict:
        """A verdict of a check."""
        return cls(family, verdict.passed, verdict.reason, verdict.span)


Verdicts = Mapping[str, Sequence[ConstraintVerdict]]
"""By column: one way of judging, such as ``repaired strict``. An answer passes a column if every constraint does."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a task; ``source`` is whatever the task judges by. ``families``: one a constraint."""

    key: str
    prompt: Prompt
    text: str
    families: tuple[str, ...]
    source: Any = field(repr=False, default=None)


class Task(ABC):
    """Items and how their answers are judged. ``columns``: ways of judging, the one that counts first."""

    name: str
    columns: tuple[str, ...]
    max_new_tokens = 512

    @abstractmethod
    def items(self) -> Sequence[Item]:
        """All items, in a fixed order, keys unique."""

    @abstractmethod
    def judge(self, item: Item, response: str) -> Verdicts:
        """Verdicts on a response that is not blank, by column."""

    def request(self, item: Item, settings: DecodingSettings, seed: int, repeat: int) -> Request:
        """What is asked; settings that leave the length open get the task's."""
        defaults = DecodingSettings(sampling={"max_new_tokens": self.max_new_tokens})
        return Generation(item.prompt, settings.over(defaults), seed, repeat)

    def judge_empty(self, item: Item) -> Verdicts:
        """An answer that says nothing follows nothing, whatever a check would find in an empty text."""
        failed = tuple(ConstraintVerdict(family, False, EMPTY) for family in item.families)
        return dict.fromkeys(self.columns, failed)
