"""The model is found by lm-eval's own command, and hides none of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ift_serve.evaluation.harness.start_file import remove_start_file, write_start_file

_PATHS = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    "begin",
    [
        "from ift_serve.evaluation.harness.registration import register_on_import; register_on_import()",
        "import lm_eval.models; from ift_serve.evaluation.harness.registration import register_on_import; "
        "register_on_import()",
        "from ift_serve.evaluation.harness.registration import register; register(); register()",
    ],
)
def test_every_backend_is_there_beside_ours(begin: str) -> None:
    code = f"""{begin}
import sys
from lm_eval.api.registry import get_model, model_registry
print(get_model("ift-serve").__name__, get_model("dummy").__name__, "hf" in model_registry, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_PATHS, timeout=120)
    assert done.stdout.split() == ["IftServeLM", "DummyLM", "True", "False"], done.stderr[-2000:]


def test_waiting_for_lm_eval_imports_nothing() -> None:
    code = """
import sys
before = set(sys.modules)
from ift_serve.evaluation.harness.registration import register_on_import
register_on_import()
print(sorted(m for m in set(sys.modules) - before if m.split(".")[0] in ("lm_eval", "grpc", "torch", "numpy")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_PATHS, check=True)
    assert done.stdout.strip() == "[]"


def test_the_start_file_is_taken_away(tmp_path: Path) -> None:
    assert write_start_file(tmp_path).is_file()
    remove_start_file(tmp_path)
    remove_start_file(tmp_path)
    assert not list(tmp_path.iterdir())


_TASK = """
task: foxes
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""


@pytest.mark.slow
def test_lm_evals_own_command_runs_it(tiny_server: str, tmp_path: Path) -> None:
    """With the file that Python reads at its start, and nothing else of ours."""
    write_start_file(tmp_path)
    rows = [{"question": f"the fox {i}", "choices": ["a", "b"], "answer": i % 2} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "foxes.yaml").write_text(_TASK % (tmp_path / "rows.jsonl"))
    command = [
        sys.executable, "-c",
        f"import site; site.addsitedir({str(tmp_path)!r})\n"
        "from lm_eval.__main__ import cli_evaluate; cli_evaluate()",
        "run", "--model", "ift-serve", "--model_args", f"target={tiny_server},results=none", "--tasks", "foxes",
        "--include_path", str(tasks), "--output_path", str(tmp_path / "out.json"),
    ]  # fmt: skip
    environment = _PATHS | {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=170)
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = tmp_path.glob("out*.json")
    results = json.loads(written.read_text())
    assert 0 <= results["results"]["foxes"]["acc,none"] <= 1
    assert results["config"]["coverage"] == 1.0 and results["config"]["model_fingerprint"]
