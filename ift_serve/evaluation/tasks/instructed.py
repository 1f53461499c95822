"""IFEval and IFBench: prompts of a local file, judged by the published and by the repaired checkers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.instructions import Column, InstructedPrompt
from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.record_file import read_records
from ift_serve.evaluation.tasks.task import KIND, ConstraintVerdict, Item, Task, Verdicts

_COLUMNS: tuple[Column, ...] = ("repaired", "published")


class Instructed(Task):
    """Prompts with instructions by id. Repaired strict is what counts; no column mixes two checkers."""

    columns = ("repaired strict", "repaired loose", "published strict", "published loose")
    max_new_tokens = 1280

    def __init__(self, name: str, data: Path) -> None:
        self.name = name
        self._items: list[Item] = []
        for number, row in read_records(data):
            try:
                parsed = InstructedPrompt.parse(row)
            except ValueError as error:
                raise EvaluationError(f"{data}:{number}: {error}") from None
            families = tuple(instruction.id for instruction in parsed.instructions)
            key = parsed.key or str(number)
            prompt, labels = Prompt(instruction=parsed.prompt), {KIND: "instruction"}
            self._items.append(Item(key, prompt, parsed.prompt, families, parsed, labels))

    def items(self) -> Sequence[Item]:
        return self._items

    def judge(self, item: Item, response: str) -> Verdicts:
        prompt: InstructedPrompt = item.source
        found: dict[str, list[ConstraintVerdict]] = {}
        try:
            for column in _COLUMNS:
                verdicts = prompt.judge(response, column)
                for strictness, judged in (("strict", verdicts.strict), ("loose", verdicts.loose)):
                    pairs = zip(item.families, judged, strict=True)
                    found[f"{column} {strictness}"] = [ConstraintVerdict.of(f, v) for f, v in pairs]
        except MissingExtraError as error:
            raise EvaluationError(str(error)) from None
        return found
