"""Adherence: generated instructions of a held-out split, each with the checks that judge any answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ift_serve.checks import Check, parse_checks
from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.record_file import read_records
from ift_serve.evaluation.tasks.task import KIND, ConstraintVerdict, Item, Task, Verdicts

SHIPPED = Path(__file__).parent / "adherence.jsonl"
"""20 prompts of each family; ``ift-serve data held-out`` writes such files."""


class Adherence(Task):
    """Instructions whose combinations no training of this project has seen."""

    name = "adherence"
    columns = ("strict",)
    max_new_tokens = 128

    def __init__(self, data: Path | None = None) -> None:
        self._items = [_item(data or SHIPPED, number, row) for number, row in read_records(data or SHIPPED)]

    def items(self) -> Sequence[Item]:
        return self._items

    def judge(self, item: Item, response: str) -> Verdicts:
        checks: tuple[Check, ...] = item.source
        judged = [check.verdict(response, item.text) for check in checks]
        return {"strict": [ConstraintVerdict.of(f, v) for f, v in zip(item.families, judged, strict=True)]}


class Unseen(Adherence):
    """The same prompts, told apart by whether an adapter's training had their family."""

    name = "unseen"
    needs_training = True


def _item(path: Path, number: int, row: dict[str, object]) -> Item:
    try:
        checks = parse_checks(row["checks"])
        instruction, context = str(row["instruction"]), str(row.get("context", ""))
        key, family = str(row["key"]), str(row["family"])
    except KeyError as error:
        raise EvaluationError(f"{path}:{number}: has no {error.args[0]}") from None
    except ValueError as error:
        raise EvaluationError(f"{path}:{number}: {error}") from None
    if not checks:
        raise EvaluationError(f"{path}:{number}: checks: an item without checks passes whatever is answered")
    text = f"{instruction}\n\n{context}" if context else instruction
    prompt = Prompt(instruction=instruction, context=context)
    return Item(key, prompt, text, (family,) * len(checks), checks, {KIND: "family"})
