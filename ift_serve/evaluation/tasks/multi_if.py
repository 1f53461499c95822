"""Conversations of several turns, each with instructions of its own (Multi-IF, He et al., 2024, arXiv 2410.15553)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.instructions import Column, InstructedPrompt
from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.requests import Generation, Request
from ift_serve.evaluation.tasks.record_file import read_records
from ift_serve.evaluation.tasks.task import EMPTY, KIND, ConstraintVerdict, Item, Task, Verdicts

_COLUMNS: tuple[Column, ...] = ("repaired", "published")
_NO_SPACES = frozenset({"chinese", "japanese", "thai", "zh", "ja", "th"})
_COUNTED = ("length_constraints:", "count:", "change_case:")
"""Instructions whose checkers take words to stand between spaces."""


class MultiIf(Task):
    """Rows with ``turn_1_prompt``, ``turn_1_instruction_id_list``, ``turn_1_kwargs``, ``turn_2_prompt`` and so on.

    The history of a turn is what the model itself has answered. Each turn is judged by the instructions of its own row
    fields, which in Multi-IF's files repeat those of the turns before.
    """

    columns = ("repaired strict", "repaired loose", "published strict", "published loose")
    max_new_tokens = 1024

    def __init__(self, data: Path, name: str = "multi_if") -> None:
        self.name = name
        self._items = [_item(data, number, row) for number, row in read_records(data)]

    def items(self) -> Sequence[Item]:
        return self._items

    def request(self, item: Item, settings: DecodingSettings, seed: int, repeat: int) -> Request:
        defaults = DecodingSettings(sampling={"max_new_tokens": self.max_new_tokens})
        later = tuple(turn.prompt for turn in item.source[1:])
        return Generation(item.prompt, settings.over(defaults), seed, repeat, later)

    def judge(self, item: Item, response: str) -> Verdicts:
        """A single answer is that of the first turn."""
        return self.judge_answers(item, [response])

    def judge_answers(self, item: Item, answers: Sequence[str]) -> Verdicts:
        """Each turn's answer by that turn's instructions; a blank one follows none, and spoils no other turn."""
        found: dict[str, list[ConstraintVerdict]] = {column: [] for column in self.columns}
        for number, (turn, answer) in enumerate(zip(item.source, answers, strict=False), 1):
            for column in _COLUMNS:
                for strictness, judged in _judged(turn, answer, column, number).items():
                    found[f"{column} {strictness}"] += judged
        return found


def _judged(
    turn: InstructedPrompt, answer: str, column: Column, number: int
) -> Mapping[str, Sequence[ConstraintVerdict]]:
    ids = [instruction.id for instruction in turn.instructions]
    if not answer.strip():
        failed = [ConstraintVerdict(name, False, EMPTY, None, number) for name in ids]
        return {"strict": failed, "loose": failed}
    try:
        verdicts = turn.judge(answer, column)
    except MissingExtraError as error:
        raise EvaluationError(str(error)) from None
    return {
        strictness: [ConstraintVerdict.of(name, v, number) for name, v in zip(ids, judged, strict=True)]
        for strictness, judged in (("strict", verdicts.strict), ("loose", verdicts.loose))
    }


def _item(path: Path, number: int, row: Mapping[str, Any]) -> Item:
    where = f"{path}:{number}"
    turns: list[InstructedPrompt] = []
    while row.get(f"turn_{len(turns) + 1}_prompt"):
        turns.append(_turn(row, len(turns) + 1, where))
    if not turns:
        raise EvaluationError(f"{where}: has no turn_1_prompt")
    language = str(row.get("language", "English"))
    families = tuple(instruction.id for turn in turns for instruction in turn.instructions)
    if language.lower() in _NO_SPACES and (wrong := next((f for f in families if f.startswith(_COUNTED)), None)):
        raise EvaluationError(
            f"{where}: language: {language} has no spaces between words, which {wrong} counts; take such rows out"
        )
    text = "\n\n".join(turn.prompt for turn in turns)
    prompt = Prompt.from_messages([("user", turns[0].prompt)])
    key = f"{row.get('key', number)}"
    return Item(key, prompt, text, families, tuple(turns), {"language": language, KIND: "instruction"})


def _turn(row: Mapping[str, Any], number: int, where: str) -> InstructedPrompt:
    """One turn; its fields are values, or JSON in texts as the benchmark's own files have them."""
    prefix = f"turn_{number}_"
    missing = [name for name in ("instruction_id_list", "kwargs") if prefix + name not in row]
    if missing:
        raise EvaluationError(f"{where}: has no {prefix}{missing[0]}")
    try:
        prompt = _content(row[f"{prefix}prompt"])
        ids = _value(row[f"{prefix}instruction_id_list"])
        kwargs = [_value(given) for given in _value(row[f"{prefix}kwargs"])]
        return InstructedPrompt.parse({"prompt": prompt, "instruction_id_list": ids, "kwargs": kwargs})
    except (ValueError, TypeError) as error:
        raise EvaluationError(f"{where}: turn {number}: {error}") from None


def _content(given: object) -> str:
    """The text of a turn: the text itself, or a message ``{"role": "user", "content": text}``, as JSON or as it is."""
    value = given
    if isinstance(given, str) and given.lstrip().startswith('{"'):
        value = _value(given)
    if isinstance(value, Mapping):
        value = value.get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError("prompt: give a text, or a message with content")
    return value


def _value(given: object) -> Any:
    return json.loads(given) if isinstance(given, str) else given
