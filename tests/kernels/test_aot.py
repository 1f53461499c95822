"""The kernels compiled for GPUs that are not here: registers, spills, shared memory, tensor cores, recompilation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ift_kernels.aot.__main__ import BUDGET, CAPABILITIES

pytest.importorskip("triton", reason="Triton is there on Linux only")


def _ahead(*arguments: str) -> Any:
    """The command's output. In a process of its own: in this one the kernels are interpreted."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ift_kernels.aot", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_stay_within_their_budgets(capability: int) -> None:
    budget = json.loads(BUDGET.read_text(encoding="utf-8"))[str(capability)]
    measured = _ahead("--arch", str(capability))[str(capability)]
    assert set(measured) == set(budget), "a kernel was added or went: python -m ift_kernels.aot --update"
    over = [
        f"{key}: {name} {used[name]} > {budget[key][name]}"
        for key, used in measured.items()
        for name in ("registers", "stack", "shared")
        if used[name] > budget[key][name]
    ]
    assert not over
    kinds = {80: "HMMA", 90: "HGMMA", 100: "UTC"}
    for key, used in measured.items():
        if key.startswith("prefill"):
            assert used["tensor_core"].startswith(kinds[capability]), key
        elif "paged_decode_split" in key or "lora" in key:
            assert used["tensor_core"] == "HMMA", "16 rows are fewer than the wider instructions take"


def test_serving_shapes_compile_each_kernel_at_most_twice() -> None:
    counts = _ahead("--sweep", "--arch", "90")["90"]
    assert len(counts) >= 15
    assert {name: count for name, count in counts.items() if count > 2} == {}
