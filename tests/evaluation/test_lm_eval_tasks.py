"""Tasks of lm-eval in `ift-serve eval`, from a folder of task files, and reports in lm-eval's own files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.cli.eval_harness import split_names
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.harness.lm_eval_tasks import HarnessPlan, load_tasks
from ift_serve.evaluation.harness.result_files import write_result_files
from ift_serve.evaluation.reporting.document import report_of
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.tasks.task import ConstraintVerdict

_CHOICES = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""
_ANSWERS = """
task: gsm8k
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 4}}
metric_list: [{{metric: exact_match}}]
"""
_BROKEN = """
task: broken
dataset_path: json
dataset_kwargs: {data_files: {test: /no/such/file.jsonl}}
test_split: test
doc_to_text: x
doc_to_target: x
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two task files with local data; the second has a name that ift-serve knows too."""
    path = tmp_path / "tasks"
    path.mkdir()
    rows = [{"question": f"Colour {n}", "choices": [" red", " blue"], "answer": n % 2} for n in range(6)]
    rows.append(rows[0] | {"question": "too long " * 300})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (path / "colours.yaml").write_text(_CHOICES.format(data=tmp_path / "rows.jsonl"), encoding="utf-8")
    (path / "gsm8k.yaml").write_text(_ANSWERS.format(data=tmp_path / "rows.jsonl"), encoding="utf-8")
    return path


def test_names_are_ours_or_lm_evals(folder: Path) -> None:
    file = {"gsm8k": folder}
    assert split_names("adherence,gsm8k,arc_easy", {}, folder) == (["adherence"], ["gsm8k", "arc_easy"])
    assert split_names("gsm8k", file, folder) == (["gsm8k"], [])
    assert split_names("gsm8k, reliable@3, lm_eval:gsm8k", {}, None) == (["gsm8k", "reliable@3"], ["gsm8k"])


def test_the_command_runs_them_and_writes_lm_evals_files(folder: Path, tiny_server: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["eval", "--target", tiny_server, "--tasks", "colours,gsm8k,adherence", "--include-path", str(folder)]
    command += ["--limit", "7", "--decoding", "max_new_tokens=4", "--report", str(out), "--json"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    covered = {c["task"]: (c["asked"], c["answered"]) for c in report["coverage"]}
    assert covered == {"adherence": (7, 7), "colours": (7, 6), "gsm8k": (7, 6)}
    score = next(s for s in report["scores"] if s["task"] == "colours" and s["level"] == "prompt")
    assert score["column"] == "acc" and score["prompts"] == 6 and 0 <= score["value"] <= 1
    assert set(report["lm_eval"]["base"]) == {"colours", "gsm8k"}
    long = next(row for row in report["rows"] if row["error"])
    assert long["task"] == "colours" and not long["verdicts"]
    _check_files(out / "lm_eval" / "base", {"adherence": 7, "colours": 7, "gsm8k": 7})


def _check_files(path: Path, samples: dict[str, int]) -> None:
    """By lm-eval's own functions, and by the library that reads its files."""
    from datasets import load_dataset
    from lm_eval.utils import (
        get_file_datetime,
        get_file_task_name,
        get_results_filenames,
        get_sample_results_filenames,
        make_table,
    )

    names = [str(file) for file in path.iterdir()]
    (result,) = get_results_filenames(names)
    found = json.loads(Path(result).read_text(encoding="utf-8"))
    table = make_table(found)
    assert all(task in table for task in samples)
    listed = get_sample_results_filenames(names)
    assert {get_file_task_name(Path(name).name) for name in listed} == set(samples) == set(found["task_hashes"])
    assert len({get_file_datetime(Path(name).name) for name in listed}) == 1
    for name in listed:
        rows = load_dataset("json", data_files=name, split="train")
        assert len(rows) == samples[get_file_task_name(Path(name).name)]
        assert {"doc_id", "doc", "arguments", "resps", "filtered_resps", "doc_hash"} <= set(rows.column_names)


def test_published_columns_have_lm_evals_names(tmp_path: Path) -> None:
    verdicts = {
        "repaired strict": [ConstraintVerdict("a", True), ConstraintVerdict("b", True)],
        "published strict": [ConstraintVerdict("a", True), ConstraintVerdict("b", False)],
    }
    rows = [Row("m@1", "ifeval", str(n), 0, f"?{n}", answer="x", verdicts=verdicts) for n in range(4)]
    rows.append(Row("m@1", "ifeval", "9", 0, "?", error="UNAVAILABLE: gone"))
    found = report_of(rows, ["m@1"]) | {"settings": {"sampling": {"temperature": 0.0}}}
    files = write_result_files(found, rows, tmp_path)
    results = json.loads(files[0].read_text(encoding="utf-8"))
    values = results["results"]["ifeval"]
    assert (values["prompt_level_strict_acc,none"], values["inst_level_strict_acc,none"]) == (0.0, 0.5)
    assert values["prompt_level_repaired_strict_acc,none"] == 1.0
    assert results["n-samples"]["ifeval"] == {"original": 5, "effective": 4}
    sample = json.loads(files[1].read_text(encoding="utf-8").splitlines()[0])
    assert sample["inst_level_strict_acc"] == [True, False] and sample["resps"] == [["x"]]
    _check_files(files[0].parent, {"ifeval": 4})


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (_BROKEN, "broken: its data cannot be loaded: .*--include-path"),
        ("task: broken\ndataset_path: json\nprocess_docs: !function no_such_module_here.f\n", "no_such_module_here"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_before_anything_is_asked(tmp_path: Path, yaml: str, message: str) -> None:
    (tmp_path / "broken.yaml").write_text(yaml, encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        load_tasks(HarnessPlan(["broken"], tmp_path))


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is no directory"):
        load_tasks(HarnessPlan(["x"], tmp_path / "none"))


@pytest.mark.slow
def test_a_name_that_nobody_has_is_told_with_near_ones() -> None:
    with pytest.raises(EvaluationError, match=r"arc_eazy: neither .* near: .*arc_easy"):
        load_tasks(HarnessPlan(["arc_eazy"]))


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: dict[str, Any] = {"lm_eval": None, "lm_eval.tasks": None}
    for name, module in blocked.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(EvaluationError, match=r"arc_easy: .*ift-serve\[eval\]"):
        load_tasks(HarnessPlan(["arc_easy"]))
