"""reliable@k: whether a prompt is kept in whatever words it is asked (IFEval++, 2025, arXiv 2512.14754)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ift_serve.checks import Check
from ift_serve.checks.instructions import InstructedPrompt
from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.evaluation.tasks.instructed import Instructed
from ift_serve.evaluation.tasks.rewording import MOST, cousins
from ift_serve.evaluation.tasks.task import COUSIN, COUSIN_OF, Item, Task, Verdicts, spread

_EVERY = 4
"""Of the prompts that come with the package, one in so many is asked, each in all its wordings."""
_OF_THE_PROMPT = ("combination:repeat_prompt", "repeat:")
"""Instructions to give back the request itself, which another wording would change."""


class Reliable(Task):
    """Each prompt of a task in ``k`` wordings, judged by the checks of the prompt.

    Without a file, prompts of ``adherence``; a file is shaped as IFEval's. Prompts that ask to be repeated have no
    other wording and are left out, which :attr:`notes` says.
    """

    name = "reliable"

    def __init__(self, data: Path | None = None, k: int = 5) -> None:
        if not 2 <= k <= MOST:
            raise EvaluationError(f"reliable@{k}: give a number of wordings from 2 to {MOST}")
        self.name, self._k = f"reliable@{k}", k
        self._base: Task = Adherence() if data is None else Instructed("reliable", data)
        self.columns, self.max_new_tokens = self._base.columns, self._base.max_new_tokens
        every = self._base.items()[::_EVERY] if data is None else self._base.items()
        asked = [item for item in every if not any(family.startswith(_OF_THE_PROMPT) for family in item.families)]
        self.notes = (
            (f"{len(every) - len(asked)} prompts that ask to be repeated have no other wording: left out",)
            if len(asked) < len(every)
            else ()
        )
        self._items = [cousin for item in asked for cousin in _cousins(item, k)]

    def items(self) -> Sequence[Item]:
        return self._items

    def limited(self, limit: int | None) -> Sequence[Item]:
        """Whole groups of wordings, one at least."""
        if limit is None:
            return self._items
        firsts = spread(range(0, len(self._items), self._k), max(1, limit // self._k))
        return [item for first in firsts for item in self._items[first : first + self._k]]

    def judge(self, item: Item, response: str) -> Verdicts:
        return self._base.judge(item.source, response)


def _cousins(item: Item, k: int) -> list[Item]:
    asked = item.prompt.instruction or ""
    found = []
    for number, wording in enumerate(cousins(asked, _arguments(item.source), k, item.key)):
        prompt = Prompt(instruction=wording, context=item.prompt.context)
        text = f"{wording}\n\n{prompt.context}" if prompt.context else wording
        labels = {**item.labels, COUSIN_OF: item.key, COUSIN: number}
        found.append(replace(item, key=f"{item.key}#{number}", prompt=prompt, text=text, source=item, labels=labels))
    return found


def _arguments(source: InstructedPrompt | tuple[Check, ...]) -> list[Any]:
    """Plain values that the checks of a prompt look for."""
    if isinstance(source, InstructedPrompt):
        return [one.model_dump(mode="json") for one in source.instructions]
    return [check.model_dump(mode="json") for check in source]
