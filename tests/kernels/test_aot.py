"""The kernels compiled for GPUs that are not here: registers, spills, shared memory, tensor cores, recompilation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ift_kernels.aot.__main__ import BUDGET, CAPABILITIES
from ift_kernels.device import FLOAT8_CAPABILITY

pytest.importorskip("triton", reason="Triton is there on Linux only")


_SOME = """
import json, sys
from ift_kernels.aot import __main__, cases
wanted, every = sys.argv[1].split(), cases.budgeted
cases.budgeted = lambda: (case for case in every() if case[0] in wanted)
print(json.dumps({capability: __main__.measure(int(capability)) for capability in sys.argv[2:]}))
"""


def _compiled(*arguments: str) -> Any:
    """What Python prints. In a process of its own: in this one the kernels are interpreted."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def _ahead(*arguments: str) -> Any:
    """The command's output."""
    return _compiled("-m", "ift_kernels.aot", *arguments)


SOME = ("prefill", "lora", "decode/narrow", "sample/processed", "temperatures", "elementwise", "write/norms", "fixed")
"""Cases with every family of kernels, and each kind of tensor-core instruction."""
KINDS = {80: "HMMA", 90: "HGMMA", 100: "UTC"}


def _budget(capability: int) -> dict[str, dict[str, Any]]:
    budget: dict[str, dict[str, Any]] = json.loads(BUDGET.read_text(encoding="utf-8"))[str(capability)]
    return budget


def _assert_within(measured: dict[str, dict[str, Any]], budget: dict[str, dict[str, Any]], capability: int) -> None:
    assert set(measured) == set(budget), "a kernel was added or went: python -m ift_kernels.aot --update"
    over = [
        f"{key}: {name} {used[name]} > {budget[key][name]}"
        for key, used in measured.items()
        for name in ("registers", "stack", "shared")
        if used[name] > budget[key][name]
    ]
    assert not over
    for key, used in measured.items():
        if key.startswith("prefill"):
            assert used["tensor_core"].startswith(KINDS[capability]), key
        elif "paged_decode_split" in key or "lora" in key:
            assert used["tensor_core"] == "HMMA", "16 rows are fewer than the wider instructions take"


def test_a_case_of_each_family_stays_within_its_budget() -> None:
    """On the architecture that takes least to compile for; the prefill's instructions, which differ, on all."""
    measured = _compiled("-c", _SOME, " ".join(SOME), "80")["80"]
    _assert_within(measured, {key: of for key, of in _budget(80).items() if key.split(":")[0] in SOME}, 80)
    families = {key.split("/")[0].split(":")[0] for key in _budget(80)}
    assert families == {case.split("/")[0] for case in SOME}


def test_prefill_takes_the_widest_instructions() -> None:
    for capability, measured in _compiled("-c", _SOME, "prefill", "90", "100").items():
        budget = {key: of for key, of in _budget(int(capability)).items() if key.startswith("prefill:")}
        _assert_within(measured, budget, int(capability))


def test_every_case_has_a_budget() -> None:
    from ift_kernels.aot.cases import budgeted

    cases = {name for name, _ in budgeted()}
    for capability in CAPABILITIES:
        known = {key.split(":")[0] for key in _budget(capability)}
        assert known == {case for case in cases if capability >= FLOAT8_CAPABILITY or "float8" not in case}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_stay_within_their_budgets(capability: int) -> None:
    _assert_within(_ahead("--arch", str(capability))[str(capability)], _budget(capability), capability)


def test_serving_shapes_compile_each_kernel_at_most_twice() -> None:
    counts = _ahead("--sweep", "--arch", "90")["90"]
    assert len(counts) >= 15
    assert {name: count for name, count in counts.items() if count > 2} == {}
