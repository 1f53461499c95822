"""Runs that are killed go on where they were, and nothing is taken for the answer of another model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from ift_serve.client import Prompt
from ift_serve.evaluation.harness.backend import IftServeLM
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.outcomes import Answer, LogLikelihood
from ift_serve.evaluation.serving.requests import Generation
from ift_serve.evaluation.serving.result_store import ResultStore

_RUN = """
import sys
from lm_eval.api.instance import Instance
from ift_serve.evaluation.harness.backend import IftServeLM

lm = IftServeLM(sys.argv[1], results=sys.argv[2], concurrency=4, temperature=1.0, max_gen_toks=40)
texts = [(f"the fox {i}", {"until": []}) for i in range(int(sys.argv[3]))]
asked = [Instance("generate_until", {}, text, 0, ("t", i, 1)) for i, text in enumerate(texts)]
texts = lm.generate_until(asked, disable_tqdm=True)
print(lm.runner.totals.calls, hash(tuple(texts)))
"""


def _rows(path: Path) -> int:
    if not path.exists():
        return 0
    with ResultStore(path) as store:
        return len(store)


def test_a_killed_run_asks_again_only_for_what_was_in_flight(tiny_server: str, tmp_path: Path) -> None:
    count, results = 120, tmp_path / "results.sqlite"
    command = [sys.executable, "-c", _RUN, tiny_server, str(results), str(count)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "0"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while _rows(results) < 10 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "the run had ended before it was killed"
    kept = _rows(results)
    assert 10 <= kept < count
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=90)
    calls, digest = second.stdout.split()
    assert int(calls) == count - kept and _rows(results) == count
    whole = subprocess.run(
        [*command[:4], str(tmp_path / "other.sqlite"), str(count)], env=environment, capture_output=True, text=True,
        check=True, timeout=90,
    )  # fmt: skip
    assert whole.stdout.split() == [str(count), digest], "a resumed run says what an unbroken one does"


def _generation(**changes: Any) -> Generation:
    values: dict[str, Any] = {"prompt": Prompt(instruction="say hello"), "seed": 1, "repeat": 0}
    values["settings"] = DecodingSettings(sampling={"temperature": 0.5})
    return Generation(**(values | changes))


_IDENTITY = {
    "fingerprint": "f",
    "template": "t",
    "adapter": "a@1",
    "dtype": "float32",
    "weights": "int8",
    "defaults": {"top_k": 0},
}


@pytest.mark.parametrize("field", list(_IDENTITY))
def test_two_models_never_share_a_row(field: str) -> None:
    with ResultStore() as store:
        store.put(_IDENTITY, _generation().described(), Answer("one"))
        assert store.get(_IDENTITY | {field: "other"}, _generation().described()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": Prompt(instruction="say hello!")},
        {"prompt": Prompt(text="say hello")},
        {"seed": 2},
        {"repeat": 1},
        {"turns": ("and now?",)},
        {"settings": DecodingSettings(sampling={"temperature": 0.6})},
        {"settings": DecodingSettings.read({"temperature": 0.5, "reasoning": "vote:4"})},
        {"settings": DecodingSettings.read({"temperature": 0.5, "adaptive_temperature": "entropy"})},
    ],
)
def test_two_questions_never_share_a_row(changes: dict[str, Any]) -> None:
    with ResultStore() as store:
        store.put(_IDENTITY, _generation().described(), Answer("one"))
        assert store.get(_IDENTITY, _generation(**changes).described()) is None


@pytest.mark.parametrize("outcome", [Answer("ä", "thought", "eos", earlier=("x",)), LogLikelihood(-1.5, True, 3)])
def test_what_is_kept_comes_back_as_it_was(tmp_path: Path, outcome: Answer | LogLikelihood) -> None:
    with ResultStore(tmp_path / "r.sqlite") as store:
        store.put(_IDENTITY, _generation().described(), outcome)
    with ResultStore(tmp_path / "r.sqlite") as store:
        assert store.get(_IDENTITY, _generation().described()) == outcome


def test_scores_that_are_kept_are_not_asked_for_with_new_ones(tiny_server: str, tmp_path: Path) -> None:
    def run(choices: list[str]) -> tuple[Any, int]:
        lm = IftServeLM(tiny_server, results=str(tmp_path / "r.sqlite"))
        try:
            asked = [Instance("loglikelihood", {}, ("the fox", c), 0, ("t", 0, 1)) for c in choices]
            return lm.loglikelihood(asked, disable_tqdm=True), lm.runner.totals.kept
        finally:
            lm.close()

    (first, _), (second, kept) = run([" a", " b"]), run([" b", " c"])
    assert kept == 1 and second[0] == first[1]
