"""Products with packed weights: every kernel computes what its own codes stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from packed_products import TINY, measure, table

from ift_kernels.quantized_linear import runs_here


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Of toy shapes, without torchao, whose import takes seconds."""
    return measure(TINY, ["ours", "torch"], [1, 5], 1, torch.get_num_threads())


@pytest.fixture(scope="module")
def by_kernel(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {found["kernel"]: found for found in report["results"]}


def test_every_kernel_is_timed_or_named_with_the_reason(report: dict[str, Any], by_kernel: dict[str, Any]) -> None:
    assert len(by_kernel) + len(report["missing"]) == 13 and all(report["missing"].values())
    for found in by_kernel.values():
        assert set(found["milliseconds"]) == {"1", "5"}
        for parts in found["milliseconds"].values():
            assert {"q, k, v", "o", "gate, up", "down", "head", "step"} <= set(parts)
            assert ("recorded" in parts) == (found["kernel"].startswith("ours") and runs_here())


def test_results_are_as_near_to_the_rounded_weights_as_the_inputs_are_kept(by_kernel: dict[str, Any]) -> None:
    for name, found in by_kernel.items():
        rounds_inputs = "dyn" in name or name in {"ours, int8", "ours, int4"}
        bound = 0.03 if rounds_inputs else 0.01 if "bfloat16" in name else 1e-5
        assert found["error"] < bound, name


def test_rounding_is_finer_with_more_bits(by_kernel: dict[str, Any]) -> None:
    for name, found in by_kernel.items():
        assert found["rounding"] <= {4: 0.12, 8: 0.01, 16: 0.002, 32: 0}[found["bits"]], name


@pytest.mark.skipif(not runs_here(), reason="the reference computes here, whose rows may depend on one another")
def test_rows_of_ours_do_not_depend_on_the_batch(by_kernel: dict[str, Any]) -> None:
    assert all(found["independent"] for name, found in by_kernel.items() if name.startswith("ours"))


def test_the_table_has_a_line_for_every_kernel(report: dict[str, Any], by_kernel: dict[str, Any]) -> None:
    lines = table(report).splitlines()
    assert all(any(line.startswith(f"| {name} |") for line in lines) for name in by_kernel)
