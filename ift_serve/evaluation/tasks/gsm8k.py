"""GSM8K: word problems of a local file, judged by the number that an answer comes to."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ift_serve.checks.extraction import Answer, boxed, last_written_number, stated
from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.record_file import read_records
from ift_serve.evaluation.tasks.task import ConstraintVerdict, Item, Task, Verdicts

_ASK = "\n\nThink step by step, and end with a line of the form: The answer is <number>."


class Gsm8k(Task):
    """Rows with ``question`` and an ``answer`` whose number follows ``####``."""

    name = "gsm8k"
    columns = ("answer",)
    max_new_tokens = 512

    def __init__(self, data: Path) -> None:
        self._items = [_item(data, number, row) for number, row in read_records(data)]

    def items(self) -> Sequence[Item]:
        return self._items

    def judge(self, item: Item, response: str) -> Verdicts:
        return {"answer": [_verdict(response, item.source)]}


def _verdict(response: str, expected: Decimal) -> ConstraintVerdict:
    found = answer_number(response)
    if found is None:
        return ConstraintVerdict("answer", False, "no number in the answer")
    number, span = found
    reason = "" if number == expected else f"the answer is {expected}"
    return ConstraintVerdict("answer", number == expected, reason, span)


def answer_number(response: str) -> tuple[Decimal, tuple[int, int]] | None:
    """The number in a box, else the one stated as the answer, else the last one; and its position."""
    for part in (boxed(response), stated(response), Answer(response, (0, len(response)))):
        number = last_written_number(part.text) if part is not None else None
        if part is not None and number is not None:
            begin = part.span[0] + number.span[0]
            value = Decimal(number.text.replace(",", "").replace("$", ""))
            return value, (begin, part.span[0] + number.span[1])
    return None


def _item(path: Path, number: int, row: dict[str, object]) -> Item:
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise EvaluationError(f"{path}:{number}: has no question or no answer")
    try:
        expected = Decimal(answer.rpartition("####")[2].strip().replace(",", ""))
    except InvalidOperation:
        raise EvaluationError(f"{path}:{number}: answer: no number follows ####") from None
    return Item(str(number), Prompt(instruction=question + _ASK), question, ("answer",), expected)
