"""Token masks in the draw: what they forbid, what they leave alone, and rows that they leave nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ift_kernels.sample_rows import RowParameters, SparseAdjustments, TokenMasks, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.sample_rows.reference import sample_rows_reference

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])


def _packed(allowed: Tensor) -> Tensor:
    """``[M, V]`` bool -> ``[M, ceil(V / 32)]`` int32."""
    padded = np.zeros((allowed.shape[0], -(-allowed.shape[1] // 32) * 32), dtype=np.uint8)
    padded[:, : allowed.shape[1]] = allowed.numpy()
    return torch.from_numpy(np.packbits(padded, axis=1, bitorder="little").view(np.int32).copy())


def _drawing(rows: int, temperature: float) -> RowParameters:
    parameters = greedy_parameters(rows)
    parameters.temperature = torch.full((rows,), temperature)
    parameters.seeds, parameters.truncated = torch.arange(rows) + 11, False
    return parameters


@BACKENDS
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("size", [5, 64, 2500])
def test_a_mask_is_a_bias_of_minus_infinity(backend: str, temperature: float, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits, allowed = torch.randn(6, size, generator=generator), torch.rand(6, size, generator=generator) < 0.3
    allowed[:, size // 2] = True
    parameters = _drawing(6, temperature)
    expected = sample_rows(logits.masked_fill(~allowed, -math.inf), parameters, backend).tokens
    parameters.masks = TokenMasks(_packed(allowed), torch.arange(6, dtype=torch.int32))
    assert torch.equal(sample_rows(logits, parameters, backend).tokens, expected)


@BACKENDS
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_a_mask_leaves_nothing_harms_no_other(backend: str, temperature: float) -> None:
    logits = torch.randn(4, 90, generator=torch.Generator().manual_seed(5))
    logits[2, :45] = -math.inf
    parameters = _drawing(4, temperature)
    without = sample_rows(logits, parameters, backend)
    allowed = torch.zeros(2, 90, dtype=torch.bool)
    allowed[1, :45] = True  # of row 2 only what is impossible anyway
    parameters.masks = TokenMasks(_packed(allowed), torch.tensor([-1, 0, 1, -1], dtype=torch.int32))
    found = sample_rows(logits, parameters, backend)
    assert found.tokens[1:3].tolist() == [-1, -1]
    assert found.statistics[1:3, 0].isnan().all()
    for row in (0, 3):
        assert found.tokens[row] == without.tokens[row]
        assert torch.equal(found.statistics[row], without.statistics[row])


@BACKENDS
def test_statistics_stay_those_of_the_raw_logits(backend: str) -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, 2.0]])
    parameters = greedy_parameters(1)
    parameters.masks = TokenMasks(torch.tensor([[0b0110]], dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    found = sample_rows(logits, parameters, backend)
    raw = torch.log_softmax(logits, -1)[0]
    assert found.tokens[0] == 1
    torch.testing.assert_close(found.statistics[0, 0], raw[1])
    torch.testing.assert_close(found.statistics[0, 1], raw[0].exp())


@BACKENDS
def test_a_target_is_scored_whatever_the_mask(backend: str) -> None:
    parameters = greedy_parameters(1)
    parameters.targets = torch.tensor([2], dtype=torch.int32)
    parameters.masks = TokenMasks(torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    assert sample_rows(torch.zeros(1, 4), parameters, backend).tokens[0] == 2


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 140),
    seed=st.integers(0, 2**31),
    share=st.floats(0.02, 1.0),
    temperature=st.sampled_from([0, 1]),
)
def test_nothing_forbidden_is_drawn(size: int, seed: int, share: float, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, allowed = torch.randn(5, size, generator=generator), torch.rand(5, size, generator=generator) < share
    parameters = _drawing(5, temperature)
    parameters.top_p, parameters.truncated = torch.full((5,), 0.8), True
    parameters.masks = TokenMasks(_packed(allowed), torch.arange(5, dtype=torch.int32))
    for row, token in enumerate(sample_rows(logits, parameters).tokens.tolist()):
        assert allowed[row, token] if token >= 0 else not allowed[row].any()


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_masks_come_after_biases_and_penalties(backend: str) -> None:
    """A bias cannot bring back what a mask forbids."""
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(8))
    parameters = _drawing(3, 1.0)
    ones = torch.ones(3)
    parameters.adjustments = SparseAdjustments(
        torch.tensor([0, 1, 2, 3], dtype=torch.int32),
        torch.tensor([7, 8, 9], dtype=torch.int32),
        torch.full((3,), -1, dtype=torch.int32),
        torch.full((3,), 50.0),
        ones,
        0 * ones,
        0 * ones,
    )
    allowed = torch.ones(1, 40, dtype=torch.bool)
    allowed[0, 7] = False
    parameters.masks = TokenMasks(_packed(allowed), torch.tensor([0, 0, -1], dtype=torch.int32))
    found = sample_rows(logits, parameters, backend).tokens
    assert found.tolist() == sample_rows_reference(logits, parameters).tokens.tolist()
    assert found[0] != 7
    assert found[1:].tolist() == [8, 9]
