"""MT-Bench's questions of several turns. Answers only; a judge model scores them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.requests import Generation, Request
from ift_serve.evaluation.tasks.record_file import read_records
from ift_serve.evaluation.tasks.task import Item, Task, Verdicts


class MtBench(Task):
    """Rows with ``question_id`` and ``turns``; each turn is asked with all that was said before."""

    name = "mt_bench"
    columns = ()
    max_new_tokens = 1024

    def __init__(self, data: Path) -> None:
        self._items = [_item(data, number, row) for number, row in read_records(data)]

    def items(self) -> Sequence[Item]:
        return self._items

    def request(self, item: Item, settings: DecodingSettings, seed: int, repeat: int) -> Request:
        defaults = DecodingSettings(sampling={"max_new_tokens": self.max_new_tokens})
        return Generation(item.prompt, settings.over(defaults), seed, repeat, item.source)

    def judge(self, item: Item, response: str) -> Verdicts:
        return {}


def _item(path: Path, number: int, row: dict[str, object]) -> Item:
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn for turn in turns):
        raise EvaluationError(f"{path}:{number}: turns: give a list of texts")
    key = str(row.get("question_id", number))
    return Item(key, Prompt.from_messages([("user", turns[0])]), "\n\n".join(turns), (), tuple(turns[1:]))
