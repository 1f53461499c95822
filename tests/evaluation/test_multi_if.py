"""Conversations of several turns: what is asked, and how each turn is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ift_serve.client import AsyncClient, Prompt
from ift_serve.evaluation.breakdowns import turn_scores
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.rows import Row, row_of
from ift_serve.evaluation.run import Plan, evaluate
from ift_serve.evaluation.serving.outcomes import Answer
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.tasks.multi_if import MultiIf
from ift_serve.evaluation.tasks.registry import build_task

_COMMA, _WORDS = "punctuation:no_comma", "length_constraints:number_words"
_ROW: dict[str, Any] = {
    "key": "7:1:en", "language": "English",
    "turn_1_prompt": json.dumps({"role": "user", "content": "Name a colour without commas."}),
    "turn_1_instruction_id_list": json.dumps([_COMMA]),
    "turn_1_kwargs": json.dumps(["{}"]),
    "turn_2_prompt": "Now in three words or more.",
    "turn_2_instruction_id_list": [_COMMA, _WORDS],
    "turn_2_kwargs": [{}, {"relation": "at least", "num_words": 3}],
    "turn_3_prompt": "",
}  # fmt: skip


def _task(folder: Path, row: dict[str, Any] = _ROW) -> MultiIf:
    path = folder / "turns.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    task = build_task("multi-if", {"multi_if": path})
    assert isinstance(task, MultiIf)
    return task


def _row(task: MultiIf, *answers: str) -> Row:
    return row_of("base", task, task.items()[0], 0, Answer(answers[-1], earlier=answers[:-1]))


def test_both_shapes_of_a_row_are_read(tmp_path: Path) -> None:
    (item,) = _task(tmp_path).items()
    assert [turn.prompt for turn in item.source] == ["Name a colour without commas.", "Now in three words or more."]
    assert item.families == (_COMMA, _COMMA, _WORDS) and item.labels == {"language": "English", "kind": "instruction"}


def test_each_turn_is_judged_by_its_own_answer(tmp_path: Path) -> None:
    row = _row(_task(tmp_path), "Blue, or so", "It is blue")
    found = [(v.turn, v.family, v.passed, v.span) for v in row.verdicts["repaired strict"]]
    assert found == [(1, _COMMA, False, (4, 5)), (2, _COMMA, True, None), (2, _WORDS, True, None)]
    first, second = (score for score in turn_scores([row]) if score.column == "repaired strict")
    assert (first.turn, first.value, second.turn, second.value) == (1, 0.0, 2, 1.0)


def test_a_blank_turn_fails_by_itself(tmp_path: Path) -> None:
    row = _row(_task(tmp_path), "  ", "It is blue")
    assert [v.passed for v in row.verdicts["published loose"]] == [False, True, True]
    last = _row(_task(tmp_path), "Blue", "")
    assert [v.passed for v in last.verdicts["published loose"]] == [True, False, False]


def test_rows_survive_json(tmp_path: Path) -> None:
    row = _row(_task(tmp_path), "Blue, or so", "It is blue")
    again = Row.read(json.loads(json.dumps(row.values())))
    assert list(again.verdicts["repaired strict"]) == row.verdicts["repaired strict"]
    assert again.labels == row.labels and again.earlier == row.earlier


async def test_the_history_is_the_models_own_answers(tmp_path: Path, embedded_server: str) -> None:
    task = _task(tmp_path)
    async with AsyncClient(embedded_server, retries=0) as client:
        plan = Plan([task], settings=_greedy())
        result = await evaluate(client, plan, ResultStore())
        (row,) = result.rows
        said: list[Any] = [("user", task.items()[0].source[0].prompt)]
        first = await client.generate(Prompt.from_messages(said), temperature=0, max_new_tokens=24)
        said += [("assistant", first.text), ("user", "Now in three words or more.")]
        second = await client.generate(Prompt.from_messages(said), temperature=0, max_new_tokens=24)
    assert not row.error and row.earlier == (first.text,) and row.answer == second.text


def _greedy() -> Any:
    from ift_serve.evaluation.serving.decoding_settings import DecodingSettings

    return DecodingSettings.read({"temperature": 0, "max_new_tokens": 24})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"turn_1_prompt": ""}, "has no turn_1_prompt"),
        ({"turn_2_kwargs": [{}]}, "turn 2: row : 2 instructions and 1 sets"),
        ({"turn_2_kwargs": "[}"}, "turn 2"),
        ({"turn_2_instruction_id_list": [_COMMA, "no:such"]}, "turn 2: .*no:such"),
        ({"turn_1_prompt": json.dumps({"role": "user"})}, "turn 1: prompt"),
        ({"language": "Chinese"}, "language: Chinese has no spaces"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=r"turns.jsonl:1: .*" + message):
        _task(tmp_path, _ROW | changed)
