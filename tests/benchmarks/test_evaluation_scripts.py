"""The scripts of the evaluation run small: what they print, not how fast."""

from __future__ import annotations

import pytest

from tests.benchmarks.test_scripts import run_script


def test_the_ceiling_of_the_harness_is_measured_against_a_stub() -> None:
    report = run_script("eval_ceiling.py", "--requests", "120")
    rates = report["requests_per_second"]
    assert set(rates) == {"generate", "score", "kept"} and all(rate > 0 for rate in rates.values())
    assert report["requests"] == 120 and report["in_flight"] == 32
    assert report["passed"] == (min(rates.values()) >= report["goal"] == 500.0)


@pytest.mark.slow
def test_the_parity_with_hf_is_measured_on_the_embedded_model() -> None:
    report = run_script("eval_parity.py", "--questions", "8", "--prompts", "8")
    assert report["passed"]
    assert report["largest_difference"] < 1e-3 and report["verdicts_that_differ"] == 0
    assert report["verdicts"] == 2 * 8 + 8
    assert report["prefill"]["ratio"] >= 3


@pytest.mark.slow
def test_the_time_of_an_evaluation_of_adherence_is_measured() -> None:
    report = run_script("eval_adherence.py", "--limit", "12")
    assert report["prompts"] == 12 and report["models"] == 2 and report["generated_tokens"] > 0
    assert not report["passed"], "twelve prompts are not the goal"
