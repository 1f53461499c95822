"""Log-probabilities in the distribution that a row was drawn from: against float64, by hand and by what is drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ift_kernels.row_statistics import TOP, row_statistics
from ift_kernels.sample_rows import RowParameters, SparseAdjustments, TokenMasks, Truncations, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.sample_rows.reference import sample_rows_reference

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])
KERNELS = pytest.mark.parametrize("backend", ["cpu", "triton"])


def _asking(rows: int, temperature: float = 1.0) -> RowParameters:
    parameters = greedy_parameters(rows)
    parameters.temperature = torch.full((rows,), temperature)
    parameters.seeds, parameters.processed = torch.arange(rows) * 7919, torch.ones(rows, dtype=torch.int32)
    return parameters


def _everything(rows: int, size: int, generator: torch.Generator) -> RowParameters:
    """Rows of every kind side by side."""

    def some(values: Tensor, rest: float = 0.0) -> Tensor:
        return torch.where(torch.rand(rows, generator=generator) < 0.4, values, torch.full((rows,), rest))

    def uniform() -> Tensor:
        return torch.rand(rows, generator=generator)

    parameters = _asking(rows)
    parameters.temperature = torch.where(uniform() < 0.85, 0.3 + uniform(), torch.zeros(rows))
    parameters.top_p, parameters.min_p = some(0.3 + uniform() * 0.6, 1.0), some(uniform() * 0.05)
    parameters.top_k = some(3 + uniform() * 40).int()
    parameters.truncations = Truncations(some(1 + uniform()), some(torch.ones(rows)), some(0.2 + uniform() * 0.7))
    parameters.near = some(uniform(), -1.0)
    parameters.targets = some(torch.full((rows,), 3.0), -1.0).int() if rows > 20 else parameters.targets
    parameters.processed = (uniform() < 0.8).int()
    ids = torch.cat([torch.randperm(size, generator=generator)[:5] for _ in range(rows)]).int()
    parameters.adjustments = SparseAdjustments(
        torch.arange(0, 5 * rows + 1, 5, dtype=torch.int32),
        ids,
        torch.randint(-1, 3, (rows * 5,), generator=generator, dtype=torch.int32),
        torch.randn(rows * 5, generator=generator) * 3,
        *(torch.rand(rows, generator=generator) + 0.5 for _ in range(3)),
    )
    words = torch.randint(-(2**31), 2**31, (2, -(-size // 32)), generator=generator).int()
    parameters.masks = TokenMasks(words, (torch.arange(rows, dtype=torch.int32) % 3) - 1)
    return parameters


@KERNELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 2500, 5003])
def test_equals_the_float64_definition(dtype: torch.dtype, size: int, backend: str) -> None:
    rows, generator = (64 if backend == "cpu" else 9), torch.Generator().manual_seed(size)
    logits = (torch.randn(rows, size, generator=generator) * 3).to(dtype)
    parameters = _everything(rows, size, generator)
    found, expected = sample_rows(logits, parameters, backend), sample_rows_reference(logits, parameters)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.processed is not None
    assert expected.processed is not None
    torch.testing.assert_close(found.processed, expected.processed, equal_nan=True, atol=2e-5, rtol=1e-5)


@BACKENDS
def test_they_are_of_what_is_left_renormalised(backend: str) -> None:
    """p = (.5, .3, .15, .05) at T = 1: top-3 leaves .95, min-p .25 of .5 leaves .95 too."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(3, 1)
    parameters = _asking(3)
    parameters.top_k, parameters.min_p = torch.tensor([3, 0, 0]).int(), torch.tensor([0.0, 0.25, 0.0])
    found = sample_rows(logits, parameters, backend).processed
    assert found is not None
    left = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    expected = torch.stack((left, left, torch.tensor([0.5, 0.3, 0.15, 0.05]))).log()
    torch.testing.assert_close(found[:, 1:5], expected)
    assert (found[:, 5:] == -math.inf).all()


@BACKENDS
@pytest.mark.parametrize("kind", ["plain", "top_p", "top_h", "near", "mask"])
def test_they_sum_to_one_and_raw_ones_do_not_change(kind: str, backend: str) -> None:
    size = TOP - 1  # so all of the distribution is among the reported ones
    logits = torch.randn(5, size, generator=torch.Generator().manual_seed(2)) * 2
    parameters = _asking(5, 0.7)
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "top_p": {"top_p": torch.full((5,), 0.8)},
        "top_h": {"truncations": Truncations(torch.zeros(5), torch.zeros(5), torch.full((5,), 0.6))},
        "near": {"near": torch.full((5,), 0.2)},
        "mask": {"masks": TokenMasks(torch.tensor([[0b1010101010101010101]]).int(), torch.zeros(5).int())},
    }
    for name, value in changes[kind].items():
        setattr(parameters, name, value)
    found = sample_rows(logits, parameters, backend)
    assert found.processed is not None
    torch.testing.assert_close(found.processed[:, 1:].exp().sum(1), torch.ones(5))
    place = (found.top_ids == found.tokens[:, None]).int().argmax(1)
    of_token = found.processed[:, 1:].gather(1, place[:, None])
    assert torch.equal(found.processed[:, :1], of_token)
    raw = torch.log_softmax(logits.double(), 1).gather(1, found.top_ids[:, :size].long()).float()
    torch.testing.assert_close(found.top_log_probs[:, :size], raw)


def test_draws_follow_them() -> None:
    rows, size = 60_000, 12
    logits = torch.linspace(0, 2.5, size).repeat(rows, 1)
    parameters = _asking(rows, 0.8)
    parameters.seeds, parameters.near = torch.arange(rows), torch.full((rows,), 0.15)
    parameters.min_p = torch.full((rows,), 0.1)
    found = sample_rows(logits, parameters)
    assert found.processed is not None
    assert torch.equal(found.processed[0, 1:], found.processed[-1, 1:])
    expected = np.zeros(size)
    expected[found.top_ids[0, :size].numpy()] = found.processed[0, 1 : 1 + size].exp().numpy() * rows
    counts = np.bincount(found.tokens.numpy(), minlength=size)
    used = expected > 0
    assert counts[~used].sum() == 0
    degrees = int(used.sum()) - 1
    assert ((counts[used] - expected[used]) ** 2 / expected[used]).sum() < degrees + 4 * math.sqrt(2 * degrees)


@BACKENDS
def test_a_greedy_row_is_certain_and_others_say_nothing(backend: str) -> None:
    logits = torch.randn(5, 70, generator=torch.Generator().manual_seed(1))
    logits[3] = math.nan
    parameters = _asking(5, 0.0)
    parameters.targets[1] = 9
    assert parameters.processed is not None
    parameters.processed[2] = 0
    found = sample_rows(logits, parameters, backend).processed
    assert found is not None
    assert found[0, :2].tolist() == [0.0, 0.0]
    assert (found[0, 2:] == -math.inf).all()
    assert found[1:4].isnan().all()
    assert found[4, 0] == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [31, 49_152])
def test_statistics_and_draw_in_one_pass_are_those_of_two(dtype: torch.dtype, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = (torch.randn(24, size, generator=generator) * 3).to(dtype)
    parameters = _everything(24, size, generator)
    together = sample_rows(logits, parameters)
    apart = sample_rows(logits, parameters, statistics=row_statistics(logits))
    for name in ("tokens", "statistics", "top_ids", "top_log_probs", "processed", "probabilities"):
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), rtol=0, atol=0, equal_nan=True)
