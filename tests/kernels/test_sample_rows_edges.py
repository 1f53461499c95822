"""Sampling at the edges of what a request may ask and a model may compute, against the float64 definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ift_kernels.sample_rows import RowParameters, SampledRows, SparseAdjustments, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.sample_rows.reference import sample_rows_reference
from tests.support.equal_rows import equal_rows

_SIZE = 2500  # over a tile of the Triton kernels
_SMALLEST, _NORMAL, _LARGEST = 1e-45, 1.17549435e-38, 3.4028234e38
_BELOW_ONE = 1 - 2**-24
BACKENDS = pytest.mark.parametrize("backend", ["cpu", "triton"])


def _random(scale: float) -> Tensor:
    return torch.randn(_SIZE, generator=torch.Generator().manual_seed(3)) * scale


def _logits(kind: str) -> Tensor:
    if kind == "few possible":
        row = torch.full((_SIZE,), -math.inf)
        row[[3, 40, 2400]] = torch.tensor([1.0, -2.0, 0.5])
        return row
    if kind == "ends of float32":
        row = torch.full((_SIZE,), -_LARGEST)
        row[2300] = _LARGEST
        return row
    if kind == "all large alike":
        return torch.full((_SIZE,), _LARGEST)
    if kind == "all low":
        return _random(1.0) - 3e38
    if kind == "equal":
        return torch.full((_SIZE,), -0.0)
    if kind == "one far ahead":
        row = _random(1.0)
        row[7] = 500.0
        return row
    return _random({"ordinary": 4.0, "large": 1e30, "huge": 1e38, "tiny": 1e-30}[kind]).clamp(-_LARGEST, _LARGEST)


LOGITS = (
    "ordinary",
    "large",
    "huge",
    "tiny",
    "few possible",
    "ends of float32",
    "all large alike",
    "all low",
    "equal",
    "one far ahead",
)


def _parameters(rows: int) -> RowParameters:
    parameters = greedy_parameters(rows)
    parameters.temperature = torch.ones(rows)
    parameters.seeds = torch.arange(rows) * 7919
    return parameters


def _assert_as_defined(row: Tensor, parameters: RowParameters, backend: str) -> SampledRows:
    """Rows of the same logits, drawn from with parameters of their own."""
    logits, statistics = equal_rows(row, len(parameters.temperature), backend)
    found, expected = sample_rows(logits, parameters, backend, statistics), sample_rows_reference(logits, parameters)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert torch.equal(found.top_ids, expected.top_ids)
    torch.testing.assert_close(found.statistics, expected.statistics, atol=5e-6, rtol=2e-5)
    torch.testing.assert_close(found.top_log_probs, expected.top_log_probs, atol=5e-6, rtol=2e-5)
    assert not found.statistics.isnan().any()
    return found


@BACKENDS
@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("truncated", [False, True])
def test_temperatures(kind: str, truncated: bool, backend: str) -> None:
    temperatures = torch.tensor([_SMALLEST, 1e-40, 1e-38, _NORMAL, 1e-30, 1e-7, 1.0, 10.0])
    parameters = _parameters(len(temperatures))
    parameters.temperature, parameters.truncated = temperatures, truncated
    if truncated:
        parameters.top_p = torch.full_like(temperatures, 0.9)
    _assert_as_defined(_logits(kind), parameters, backend)


@BACKENDS
@pytest.mark.parametrize("kind", LOGITS)
def test_truncation(kind: str, backend: str) -> None:
    cases: list[dict[str, Any]] = [
        *({"top_p": value} for value in (_SMALLEST, _NORMAL, 1e-7, _BELOW_ONE)),
        *({"min_p": value} for value in (_SMALLEST, _NORMAL, _BELOW_ONE, 1.0)),
        *({"top_k": value} for value in (1, 2, _SIZE - 1, _SIZE, 2**31 - 1)),
        {"top_p": _SMALLEST, "min_p": 1.0, "top_k": 1},
    ]
    parameters = _parameters(len(cases))
    parameters.top_p, parameters.min_p = torch.ones(len(cases)), torch.zeros(len(cases))
    parameters.top_k = torch.zeros(len(cases), dtype=torch.int32)
    parameters.temperature[::2] = 10.0
    for row, case in enumerate(cases):
        for name, value in case.items():
            getattr(parameters, name)[row] = value
    _assert_as_defined(_logits(kind), parameters, backend)


PENALIZED = ("ordinary", "large", "tiny", "few possible", "equal", "one far ahead")


@BACKENDS
@pytest.mark.parametrize("kind", PENALIZED)
def test_penalties_and_biases(kind: str, backend: str) -> None:
    """Rows of all temperatures side by side: over the kinds, each penalty meets each of them twice."""
    penalties = [
        (repetition, presence, frequency)
        for repetition in (0.01, 1.0, 10.0)
        for presence, frequency in ((-10.0, -10.0), (10.0, 10.0), (-0.0, 0.0))
    ]
    rows, entries = len(penalties), [3, 7, 40, 100, 2400]
    biases = [-math.inf, -100.0, -_SMALLEST, _SMALLEST, 100.0]
    repetition, presence, frequency = (torch.tensor(values) for values in zip(*penalties, strict=True))
    parameters = _parameters(rows)
    temperatures = torch.tensor([0.0, 1e-38, 1.0])
    parameters.temperature = temperatures[(torch.arange(rows) + torch.arange(rows) // 3 + PENALIZED.index(kind)) % 3]
    parameters.adjustments = SparseAdjustments(
        torch.arange(0, len(entries) * rows + 1, len(entries), dtype=torch.int32),
        torch.tensor(entries * rows, dtype=torch.int32),
        torch.tensor([0, 1, -1, 100_000, 2] * rows, dtype=torch.int32),
        torch.tensor(biases * rows),
        repetition,
        presence,
        frequency,
    )
    found = _assert_as_defined(_logits(kind), parameters, backend)
    assert 3 not in found.tokens.tolist(), "a bias of minus infinity forbids the token"


@BACKENDS
def test_seeds_and_steps(backend: str) -> None:
    seeds = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, 2**32 - 1]
    parameters = _parameters(len(seeds))
    parameters.seeds = torch.tensor(seeds, dtype=torch.int64)
    parameters.steps = torch.tensor([0, 1, 2**31 - 1, 2**20, 7, 0, 0], dtype=torch.int32)
    _assert_as_defined(_logits("equal"), parameters, backend)


@BACKENDS
@pytest.mark.parametrize("kind", ["ordinary", "few possible", "all low", "one far ahead"])
def test_half_precision_logits(kind: str, backend: str) -> None:
    temperatures = torch.tensor([_SMALLEST, 1e-38, 0.5])
    parameters = _parameters(3)
    parameters.temperature = temperatures
    _assert_as_defined(_logits(kind).to(torch.bfloat16), parameters, backend)
