"""The scripts about made data run small: what they print, not how fast."""

from __future__ import annotations

import pytest

from tests.benchmarks.test_scripts import run_script


def test_the_pool_of_instructions_is_timed_and_agrees_with_the_package() -> None:
    report = run_script("rouge_pool.py", "--count", "1500", "--sample", "2")
    assert report["passed"] and report["rejected"] > 20 and report["instructions"] == 1500


@pytest.mark.slow
def test_a_model_learns_from_records_that_it_made() -> None:
    small = ("--seeds", "1", "--plain", "4", "--records", "12", "--steps", "6", "--examples", "2")
    report = run_script("generated_data.py", *small)
    (run,) = report["runs"]
    assert run["new_records"] + run["asked_by_the_test_too"] == 12 and run["requests"] == 10
    assert set(run["passes"]) == {"base", "seeds", "evolved"}
    assert run["evolution"]["steps"]["evolve.variation"]["kept"] > 0
