"""The scripts about made data run small: what they print, not how fast."""

from __future__ import annotations

from tests.benchmarks.test_scripts import run_script


def test_the_pool_of_instructions_is_timed_and_agrees_with_the_package() -> None:
    report = run_script("rouge_pool.py", "--count", "1500", "--sample", "2")
    assert report["passed"] and report["rejected"] > 20 and report["instructions"] == 1500
