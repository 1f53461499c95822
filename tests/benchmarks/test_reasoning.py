"""The problems of the reasoning benchmark, and the script as a person runs it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from reasoning_problems import Problem, from_file, generated, number

from ift_serve.checks.answers import Exact
from tests.benchmarks.test_scripts import run_script


def test_generated_problems_are_solved_by_their_own_number_alone() -> None:
    problems = generated(["arithmetic", "word_problem"], 20, 3)
    assert len({p.question for p in problems}) == 40
    for problem in problems:
        assert problem.solved_by(f"It is 7. The answer is {problem.value}.")
        assert not problem.solved_by(f"The answer is {problem.value + 1}.") and not problem.solved_by("I do not know.")
    assert (
        problems == generated(["arithmetic", "word_problem"], 20, 3) != generated(["arithmetic", "word_problem"], 20, 4)
    )


def test_a_right_number_in_words_is_not_as_asked_where_the_number_alone_was() -> None:
    problem = Problem("sum", "3 + 4 = ? The number alone.", Fraction(7), (Exact(answer="7"),))
    assert problem.as_asked("7") and problem.solved_by("The answer is 7.") and not problem.as_asked("The answer is 7.")


@pytest.mark.parametrize(
    ("text", "value"), [("so 1,250 dollars", 1250), ("$3.50.", Fraction(7, 2)), ("-4", -4), ("none", None)]
)
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    assert number(text) == value


def test_a_file_gives_the_value_behind_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    lines = [{"question": f"q{n}", "answer": f"{n} * 2 = {2 * n}\n#### {n},000"} for n in range(1, 6)]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert set(from_file(path, 9, 0)) == {Problem(tmp_path.name, f"q{n}", Fraction(1000 * n)) for n in range(1, 6)}
    assert from_file(path, 3, 0) == from_file(path, 3, 0)


def test_every_method_has_a_line_and_what_it_took() -> None:
    report = run_script(
        "reasoning.py", "--problems", "2", "--max-new-tokens", "12", "--branch", "2", "--vote", "4", "--best-of", "4",
        "--budget", "6",
    )  # fmt: skip
    lines = {line["method"]: line for line in report["methods"]}
    assert set(lines) == {
        "direct", "branch k=2", "branch k=2, by sum", "vote n=4", "vote n=4, early stop", "best of n=4", "trace",
        "trace, early exit (DEER)", "trace, early exit (EAT)",
    }  # fmt: skip
    assert all(line["problems"] == 4 and line["interval"][0] <= line["accuracy"] for line in lines.values())
    assert lines["vote n=4"]["drawn_tokens"] == lines["best of n=4"]["drawn_tokens"] > lines["direct"]["drawn_tokens"]
    assert lines["direct"]["sequences"] == 1 and lines["branch k=2"]["sequences"] == 2
    assert lines["trace"]["thought_tokens"] == 6 > 0 == lines["direct"]["thought_tokens"]
    assert lines["trace"]["forced_tokens"] > 0 == lines["direct"]["forced_tokens"] and not report["left_out"]


def test_data_that_is_not_there_is_left_out_with_the_reason() -> None:
    report = run_script("reasoning.py", "--data", "no-such-file.jsonl")
    assert "no-such-file.jsonl" in report["skipped"]


@pytest.mark.slow
def test_the_throughput_of_features_has_every_variant() -> None:
    report = run_script(
        "throughput_of_features.py", "--shape", "small", "--requests", "2", "--concurrency", "2", "--prompt", "4",
        "--new-tokens", "4", "--rounds", "1", "--width", "2",
    )  # fmt: skip
    measured = report["throughput"]["tokens_per_second"]
    assert {"plain", "statistics", "statistics and 5 alternatives"} <= set(measured)
    assert ("form" in measured) != ("form" in report["left_out"])
    assert all(rate > 0 for rate in measured.values()) and report["branch"]["sequences"] == 2
