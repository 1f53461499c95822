"""What tasks ask, and how they judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ift_serve.client import Candidate, Score
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.rows import row_of
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.outcomes import Answer, Failure, MalformedAnswerError, answer_text, checked_scores
from ift_serve.evaluation.tasks.adherence import SHIPPED, Adherence
from ift_serve.evaluation.tasks.gsm8k import answer_number
from ift_serve.evaluation.tasks.perplexity import parts
from ift_serve.evaluation.tasks.registry import build_task
from ift_training.data.held_out import write_held_out


def _file(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_the_shipped_prompts_are_those_of_the_generators(tmp_path: Path) -> None:
    assert write_held_out(tmp_path / "again.jsonl", 20, 0) >= 500
    assert (tmp_path / "again.jsonl").read_text(encoding="utf-8") == SHIPPED.read_text(encoding="utf-8")


def test_shipped_prompts_are_judged_by_their_checks() -> None:
    task = Adherence()
    item = next(i for i in task.items() if i.key == "case/0")
    (right,) = task.judge(item, "Plumber Clean Crab Soup")["strict"]
    (wrong,) = task.judge(item, "Plumber clean Crab Soup")["strict"]
    assert right.passed and not wrong.passed and wrong.span == (8, 23)


_INSTRUCTED = {
    "key": 7, "prompt": "Say something without commas in capitals.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 3}],
}  # fmt: skip


def test_ifeval_has_two_columns_each_strict_and_loose(tmp_path: Path) -> None:
    task = build_task("ifeval", {"ifeval": _file(tmp_path, _INSTRUCTED)})
    (item,) = task.items()
    found = task.judge(item, "Yes, sir\none two three four")
    assert list(found) == ["repaired strict", "repaired loose", "published strict", "published loose"]
    assert [v.passed for v in found["repaired strict"]] == [False, True]
    assert [v.passed for v in found["repaired loose"]] == [True, True]
    assert found["repaired strict"][0].span == (3, 4)


def test_an_unknown_instruction_is_an_error_of_its_line(tmp_path: Path) -> None:
    bad = _INSTRUCTED | {"instruction_id_list": ["punctuation:no_comma", "no:such"]}
    with pytest.raises(EvaluationError, match=r"rows.jsonl:2: .*no:such"):
        build_task("ifeval", {"ifeval": _file(tmp_path, _INSTRUCTED, bad)})


@pytest.mark.parametrize(("name", "message"), [("ifeval", "--data ifeval=FILE"), ("mmlu", "no task 'mmlu'")])
def test_what_is_missing_is_named(name: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        build_task(name, {})


@pytest.mark.parametrize(
    ("response", "passed"),
    [
        ("It is 3 + 4 = 7.\nThe answer is 1,007.", True),
        ("The answer is $1007.00", True),
        ("\\boxed{1007} of 9", True),
        ("1007 comes first, then 8", False),
        ("no idea", False),
    ],
)
def test_gsm8k_judges_the_final_number(tmp_path: Path, response: str, passed: bool) -> None:
    task = build_task("gsm8k", {"gsm8k": _file(tmp_path, {"question": "?", "answer": "so\n#### 1,007"})})
    (verdict,) = task.judge(task.items()[0], response)["answer"]
    assert verdict.passed is passed


def test_the_number_is_pointed_at() -> None:
    found = answer_number("So the answer is 12 apples.")
    assert found is not None and "So the answer is 12 apples."[slice(*found[1])] == "12"


def test_parts_of_a_text_give_it_when_joined() -> None:
    text = "\n\n".join("word " * (n % 700) for n in range(0, 9000, 131))
    found = list(parts(text))
    assert "".join(found) == text and len(found) > 5


def test_an_empty_answer_keeps_nothing_even_where_nothing_is_easy(tmp_path: Path) -> None:
    task = build_task("ifeval", {"ifeval": _file(tmp_path, _INSTRUCTED)})
    row = row_of("base", task, task.items()[0], 0, Answer("  \n", "a thought", "length", is_unclosed=True))
    assert row.is_empty and row.is_cut and not row.passes("repaired strict")
    assert [v.passed for v in row.verdicts["published loose"]] == [False, False]


def test_a_failure_has_no_verdicts(tmp_path: Path) -> None:
    task = build_task("ifeval", {"ifeval": _file(tmp_path, _INSTRUCTED)})
    row = row_of("base", task, task.items()[0], 0, Failure("UNAVAILABLE", "gone"))
    assert row.error == "UNAVAILABLE: gone" and row.verdicts == {}


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (Candidate(0, "yes", "eos", reasoning="hm"), ("yes", "hm", False)),
        (Candidate(0, "", "length", reasoning="hm"), ("", "hm", True)),
        (Candidate(0, "<think>hm", "length"), ("", "hm", True)),
        (Candidate(0, "\n<think>hm</think>\n\nyes", "eos"), ("yes", "hm", False)),
        (Candidate(0, "the tag <think> is", "eos"), ("the tag <think> is", "", False)),
    ],
)
def test_an_unclosed_thought_is_no_answer(candidate: Candidate, expected: tuple[str, str, bool]) -> None:
    assert answer_text(candidate) == expected


@pytest.mark.parametrize(
    "scores",
    [
        [Score(-1.0, False, 1)],
        [Score(0.0, False, 1), Score(0.0, False, 1)],
        [Score(float("nan"), False, 1), Score(-1.0, False, 1)],
        [Score(-1.0, False, 0), Score(-1.0, False, 1)],
        [Score(3.0, False, 1), Score(-1.0, False, 1)],
    ],
)
def test_scores_that_cannot_be_are_never_chance_accuracy(scores: list[Score]) -> None:
    with pytest.raises(MalformedAnswerError):
        checked_scores(scores, 2)


def test_the_length_of_a_task_holds_where_none_is_asked_for() -> None:
    task = Adherence()
    request = task.request(task.items()[0], DecodingSettings(sampling={"max_new_tokens": 9}), 0, 0)
    default = task.request(task.items()[0], DecodingSettings(), 0, 0)
    assert request.settings.sampling["max_new_tokens"] == 9  # type: ignore[union-attr]
    assert default.settings.sampling["max_new_tokens"] == 128  # type: ignore[union-attr]


def test_mt_bench_asks_in_turns_and_judges_nothing(tmp_path: Path) -> None:
    task = build_task("mt_bench", {"mt_bench": _file(tmp_path, {"question_id": 81, "turns": ["one", "two"]})})
    request = task.request(task.items()[0], DecodingSettings(), 0, 0)
    row = row_of("base", task, task.items()[0], 0, Answer("b", earlier=("a",)))
    assert request.turns == ("two",)  # type: ignore[union-attr]
    assert row.verdicts == {} and row.earlier == ("a",) and row.answer == "b"
