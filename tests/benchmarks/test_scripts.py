"""The scripts run as a person runs them, on a model so small that the figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.benchmarks.conftest import SCRIPTS


def run_script(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a script prints last."""
    paths = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=160,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.slow
def test_the_soak_finds_nothing_and_counts_everything() -> None:
    report = run_script("soak.py", "--minutes", "0.2", "--cases", "12", "--kills", "1", "--concurrency", "6")
    assert report["passed"] and not report["problem_count"]
    assert len(report["kills"]) == 1 and report["idle_load"]["running"] == 0
    assert {"generated", "streamed", "scored", "left_early", "bad_refused"} <= set(report["counts"])


@pytest.mark.slow
def test_in_half_a_minute_of_chaos_every_answer_is_accounted_for() -> None:
    report = run_script("chaos.py", "--minutes", "0.5", "--cases", "10", "--adapters", "2", "--concurrency", "6")
    assert report["passed"], report["problems"]
    wanted = {"engine killed", "engine hung", "disk full", "slow readers", "adapters replaced", "packets lost"}
    assert set(report["faults"]) | set(report["skipped"]) == wanted
    assert {"right, whole", "right, streamed", "right, adapted", "administered"} <= set(report["outcomes"])


@pytest.mark.slow
def test_serving_measures_ours_and_the_peers() -> None:
    report = run_script(
        "serving.py", "--shape", "small", "--peer", "transformers-static,transformers-cb", "--parts",
        "throughput,latency", "--requests", "6", "--concurrency", "3", "--rounds", "1", "--prompt", "4", "16",
        "--output", "4", "8",
    )  # fmt: skip
    names = {"ift-serve", "transformers-static", "transformers-cb"}
    assert set(report["throughput"]["tokens_per_second"]) == names
    assert all(v > 0 for v in report["latency"]["milliseconds_per_token"].values())


@pytest.mark.slow
def test_speculation_asks_two_servers_the_same_and_compares_what_they_say() -> None:
    report = run_script(
        "speculation.py", "--tasks", "2", "--rounds", "1", "--new-tokens", "12", "--callers", "1", "2"
    )  # fmt: skip
    for callers in ("1 callers", "2 callers"):
        for kind in ("copying", "other"):
            found = report[callers][kind]
            assert found["drafted_tokens"] >= found["accepted_tokens"] and found["generated_tokens"] > 0
            assert all(rate > 0 for rate in found["tokens_per_second"].values())


def test_speculation_in_one_process_gives_the_same_answers_with_guesses() -> None:
    report = run_script("speculation.py", "--one-process", "--tasks", "2", "--new-tokens", "12")
    for kind in ("copying, greedy", "copying, drawn", "other, greedy", "other, drawn"):
        assert report[kind]["generated_tokens"] > 0 and report[kind]["ratio"] > 0


def test_every_kernel_benchmark_runs_in_the_interpreter() -> None:
    report = run_script("kernels.py", "--tiny")
    operations = {
        "paged_decode",
        "paged_prefill",
        "write_kv",
        "lora",
        "row_statistics",
        "sample_rows",
        "temperature_heads",
        "fused_add_rms_norm",
        "silu_and_mul",
    }
    assert {r["operation"] for r in report["results"]} == operations
    assert all(r["microseconds"] > 0 for r in report["results"])


@pytest.mark.slow
def test_the_startup_benchmark_tells_first_and_later_starts_apart() -> None:
    report = run_script("startup.py", "--shape", "small", "--rounds", "1")
    assert report["first"]["seconds"] > report["later"]["seconds"] > report["help"] > 0
    assert "warming up" in report["first"]["engine"]


@pytest.mark.slow
def test_the_sampling_benchmark_has_every_kind_of_row_and_step() -> None:
    report = run_script("sampling.py", "--shape", "small", "--rounds", "2", "--rows", "4")
    assert {"statistics", "greedy", "plain", "top-H", "plain and one mask"} <= set(report["kernels"])
    assert {"step, plain", "step, adapters, heads", "temperatures of heads alone"} <= set(report["steps"])
    assert all(v > 0 for v in [*report["kernels"].values(), *report["steps"].values(), report["share_of_heads"]])


@pytest.mark.slow
def test_the_engine_benchmark_runs_on_the_cpu() -> None:
    report = run_script(
        "engine_gpu.py", "--device", "cpu", "--shape", "small", "--requests", "4", "--prompt", "4", "8",
        "--output", "4", "8",
    )  # fmt: skip
    shape = report["shapes"][0]
    assert shape["tokens_per_second"] > 0 and shape["transformers_cb"] > 0
    assert {"1", "8", "64"} == set(shape["steps"])


@pytest.mark.slow
def test_the_attack_tells_what_another_caller_felt() -> None:
    report = run_script("attack.py", "--only", "empty messages", "cancel storm")
    assert not report["lost"]
    assert set(report["felt"]) == {"nothing", "a mebibyte of empty messages", "cancel storm", "nothing, afterwards"}
    assert all(one["health"]["calls"] and one["first_token"]["calls"] for one in report["felt"].values())
