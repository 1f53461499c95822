"""Base class of tasks: items with prompts, and verdicts on answers to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ift_serve.checks.verdict import Span, Verdict
from ift_serve.client import Prompt
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.requests import Generation, Request

EMPTY = "empty answer"
CONSTRAINTS = "constraints"
"""Label: how many constraints a prompt has."""
KIND = "kind"
"""Label: what its families are names of: ``family``, ``check`` or ``instruction``, as training writes them down."""
COUSIN_OF, COUSIN = "cousin_of", "cousin"
"""Labels: which prompt an item is a rewording of, and which rewording; 0 is the prompt as it was."""


@dataclass(frozen=True, slots=True)
class ConstraintVerdict:
    """What became of one constraint. ``family``: the kind of constraint that scores are broken down by.

    ``turn``: of which turn's answer, from 1, and what ``span`` counts in; 0 where there is one answer.
    """

    family: str
    passed: bool
    reason: str = ""
    span: Span | None = None
    turn: int = 0

    @classmethod
    def of(cls, family: str, verdict: Verdict, turn: int = 0) -> ConstraintVerdict:
        """A verdict of a check."""
        return cls(family, verdict.passed, verdict.reason, verdict.span, turn)


_ItemT = TypeVar("_ItemT")
Label = str | int
Verdicts = Mapping[str, Sequence[ConstraintVerdict]]
"""By column: one way of judging, such as ``repaired strict``. An answer passes a column if every constraint does."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a task; ``source`` is whatever the task judges by. ``families``: one a constraint.

    ``labels``: what its scores are also broken down by, as :mod:`ift_serve.evaluation.breakdowns` reads them.
    """

    key: str
    prompt: Prompt
    text: str
    families: tuple[str, ...]
    source: Any = field(repr=False, default=None)
    labels: Mapping[str, Label] = field(default_factory=dict)


class Task(ABC):
    """Items and how their answers are judged. ``columns``: ways of judging, the one that counts first."""

    name: str
    columns: tuple[str, ...]
    max_new_tokens = 512
    needs_training = False
    """Whether its scores mean nothing without knowing what the adapters were trained on."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores has to know of this task's items, such as which were left out."""

    @abstractmethod
    def items(self) -> Sequence[Item]:
        """All items, in a fixed order, keys unique."""

    def limited(self, limit: int | None) -> Sequence[Item]:
        """At most ``limit`` items from all over the task; all without a limit."""
        return self.items() if limit is None else spread(self.items(), limit)

    @abstractmethod
    def judge(self, item: Item, response: str) -> Verdicts:
        """Verdicts on a response that is not blank, by column."""

    def request(self, item: Item, settings: DecodingSettings, seed: int, repeat: int) -> Request:
        """What is asked; settings that leave the length open get the task's."""
        defaults = DecodingSettings(sampling={"max_new_tokens": self.max_new_tokens})
        return Generation(item.prompt, settings.over(defaults), seed, repeat)

    def judge_answers(self, item: Item, answers: Sequence[str]) -> Verdicts:
        """Verdicts on the answers of all turns, any of which may be blank; here the last is judged."""
        return self.judge(item, answers[-1]) if answers[-1].strip() else self.judge_empty(item)

    def judge_empty(self, item: Item) -> Verdicts:
        """An answer that says nothing follows nothing, whatever a check would find in an empty text."""
        failed = tuple(ConstraintVerdict(family, False, EMPTY) for family in item.families)
        return dict.fromkeys(self.columns, failed)


def spread(items: Sequence[_ItemT], limit: int) -> Sequence[_ItemT]:
    """``limit`` items from all over a sequence, for those of one kind stand together; all of a shorter one."""
    if limit >= len(items):
        return items
    return [items[index * len(items) // limit] for index in range(limit)]
