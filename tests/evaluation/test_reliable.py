"""Rewordings of a prompt, and how many prompts are kept in all of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ift_serve.evaluation.breakdowns import reliability
from ift_serve.evaluation.comparison import compare
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.rows import Row, row_of
from ift_serve.evaluation.scores import scores
from ift_serve.evaluation.serving.outcomes import Answer, Failure
from ift_serve.evaluation.tasks.registry import build_task
from ift_serve.evaluation.tasks.rewording import MOST, cousins
from ift_serve.evaluation.tasks.task import Task

_PROMPT = 'Write a poem. Make sure it contains at least 3 times "at least once", and do not use the word "exactly so".'
_KWARGS = [{"keyword": "at least once", "frequency": 3, "relation": "at least"}, {"forbidden_words": ["exactly so"]}]
_IDS = ["keywords:frequency", "keywords:forbidden_words"]


def _file(folder: Path) -> Path:
    rows = [
        {"key": 1, "prompt": _PROMPT, "instruction_id_list": _IDS, "kwargs": _KWARGS},
        {"key": 2, "prompt": "Do not use commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {
            "key": 3, "prompt": "Repeat this.", "instruction_id_list": ["combination:repeat_prompt"],
            "kwargs": [{"prompt_to_repeat": "Repeat this."}],
        },
    ]  # fmt: skip
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def _rows(task: Task, answers: dict[str, str | None]) -> list[Row]:
    outcomes = {key: Failure("UNAVAILABLE", "gone") if text is None else Answer(text) for key, text in answers.items()}
    return [row_of("base", task, item, 0, outcomes[item.key]) for item in task.items()]


def test_wordings_differ_and_are_the_same_at_every_call() -> None:
    found = cousins(_PROMPT, _KWARGS, MOST, "a")
    assert found[0] == _PROMPT and len(set(found)) == MOST
    assert found == cousins(_PROMPT, _KWARGS, MOST, "a") != cousins(_PROMPT, _KWARGS, MOST, "b")


def test_what_is_quoted_or_looked_for_stays_letter_for_letter() -> None:
    for text in cousins(_PROMPT, _KWARGS, MOST, "a")[1:]:
        assert '"at least once"' in text and '"exactly so"' in text
        # Outside of quotation marks the words are others.
        assert "at least 3 times" not in text and "3 times" in text
    unquoted = cousins("End with: make sure. Explain why.", [{"end_phrase": "Make sure."}], 3, "a")
    assert all("make sure." in text for text in unquoted)
    assert all("Explain" not in text for text in unquoted[1:])


def test_braces_of_a_prompt_are_text() -> None:
    assert all("{x} and {}" in text for text in cousins("Fill {x} and {} in.", [], MOST, "a"))


def test_all_wordings_must_be_kept(tmp_path: Path) -> None:
    task = build_task("reliable@3", {"reliable": _file(tmp_path)})
    answers: dict[str, str | None] = {f"1#{n}": "at least once " * 3 for n in range(3)}
    answers |= {"2#0": "fine", "2#1": "also fine", "2#2": "no, not here"}
    (strict, *_) = reliability(_rows(task, answers))
    assert (strict.task, strict.column, strict.k) == ("reliable@3", "repaired strict", 3)
    assert (strict.value, strict.single, strict.groups, strict.left_out) == (0.5, 1.0, 2, 0)
    assert strict.mean == pytest.approx(5 / 6)


def test_a_prompt_whose_wording_was_not_answered_is_left_out(tmp_path: Path) -> None:
    task = build_task("reliable@2", {"reliable": _file(tmp_path)})
    answers = {"1#0": "at least once " * 3, "1#1": None, "2#0": "fine", "2#1": "fine"}
    (strict, *_) = reliability(_rows(task, answers))
    assert (strict.value, strict.groups, strict.left_out) == (1.0, 1, 1)


def test_prompts_that_ask_to_be_repeated_are_left_out_and_named(tmp_path: Path) -> None:
    task = build_task("reliable", {"reliable": _file(tmp_path)})
    assert {item.labels["cousin_of"] for item in task.items()} == {"1", "2"}
    assert task.notes == ("1 prompts that ask to be repeated have no other wording: left out",)


def test_a_limit_takes_whole_groups() -> None:
    task = build_task("reliable@4", {})
    items = task.limited(10)
    assert len(items) == 8 and {item.labels["cousin"] for item in items} == {0, 1, 2, 3}
    assert len(task.limited(1)) == 4


def test_the_shipped_prompts_keep_their_context_and_their_checks() -> None:
    task = build_task("reliable", {})
    item = next(item for item in task.items() if item.prompt.context and item.labels["cousin"])
    assert item.text.endswith(item.prompt.context) and item.source.prompt.context == item.prompt.context
    assert len(task.items()) >= 500


@pytest.mark.parametrize("name", ["reliable@1", "reliable@11", "reliable@x", "density@3"])
def test_a_number_of_wordings_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(EvaluationError, match=r"reliable@|no task"):
        build_task(name, {})


def test_wordings_of_a_prompt_are_one_observation(tmp_path: Path) -> None:
    task = build_task("reliable@3", {"reliable": _file(tmp_path)})
    rows = _rows(task, {item.key: "at least once " * 3 for item in task.items()})
    score = next(s for s in scores(rows) if s.level == "prompt" and s.column == "repaired strict")
    assert (score.prompts, score.samples) == (2, 6)
    other = [dataclasses.replace(row, model="tuned") for row in rows]
    assert next(iter(compare([*rows, *other], "base", "tuned"))).prompts == 2
