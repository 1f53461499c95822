"""IFEval's figures and what a second run changed of them, against cases that can be counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ifeval_figure import COLUMNS, difference, figure, passes, read

_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def _report(path: Path, verdicts: dict[str, list[bool]], *, weights: str = "stored") -> str:
    """A report of `ift-serve eval` as far as it is read."""
    rows = [
        {
            "key": key, "generated_tokens": 7, "is_cut": False,
            "verdicts": {column: [{"passed": passed} for passed in own] for column in COLUMNS},
        }
        for key, own in verdicts.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"rows": rows, "server": {"weights": weights}, "settings": {}, "run": {}}))
    return str(path)


def test_the_recorded_run_says_what_its_figures_say() -> None:
    path = _RESULTS / "ifeval-smollm2.json"
    recorded: dict[str, Any] = json.loads(path.read_text())
    verdicts, _ = read(str(path))
    for column in COLUMNS:
        assert figure(passes(verdicts, list(verdicts), column)) == pytest.approx(recorded["figures"][column])


def test_a_run_beside_itself_has_no_difference() -> None:
    own = [[True, False], [True], [False]]
    found = difference(own, own)
    assert found["gained"] == found["lost"] == 0
    assert found["mean"]["difference"] == found["mean"]["low"] == found["mean"]["high"] == 0.0


def test_levels_and_changes_are_those_that_can_be_counted() -> None:
    first, second = [[True, False], [True], [False]], [[True, True], [False], [False]]
    found = difference(first, second)
    assert (found["prompts"], found["gained"], found["lost"]) == (3, 1, 1)
    assert found["prompt_level"]["first"] == pytest.approx(1 / 3)
    assert found["prompt_level"]["difference"] == pytest.approx(0.0)
    assert found["instruction_level"]["first"] == pytest.approx(2 / 4)
    assert found["instruction_level"]["difference"] == pytest.approx(0.0)


def test_the_interval_has_the_width_of_the_standard_error_of_pairs() -> None:
    """With one instruction a prompt all levels are the mean of paired differences."""
    rng = np.random.default_rng(1)
    first = rng.random(400) < 0.3
    second = np.where(rng.random(400) < 0.1, ~first, first)
    changed = second.astype(float) - first
    found = difference([[bool(x)] for x in first], [[bool(x)] for x in second])["mean"]
    half = 1.96 * changed.std() / 20
    assert found["difference"] == pytest.approx(changed.mean())
    assert found["low"] == pytest.approx(changed.mean() - half, abs=0.005)
    assert found["high"] == pytest.approx(changed.mean() + half, abs=0.005)


def test_parts_of_a_run_are_read_as_one(tmp_path: Path) -> None:
    parts = _report(tmp_path / "a.json", {"1": [True]}), _report(tmp_path / "b.json", {"2": [False, True]})
    verdicts, about = read(",".join(parts))
    assert passes(verdicts, ["1", "2"], "published strict") == [[True], [False, True]]
    assert about["server"] == {"weights": "stored"} and len(about["runs"]) == 2


def test_parts_of_different_runs_are_refused(tmp_path: Path) -> None:
    parts = _report(tmp_path / "a.json", {"1": [True]}), _report(tmp_path / "b.json", {"2": [True]}, weights="int8")
    with pytest.raises(SystemExit, match="differ in their server"):
        read(",".join(parts))
