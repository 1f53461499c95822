"""Batched LoRA on the CPU against float64, and its independence of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ift_kernels.cpu_simd import bf16
from ift_kernels.lora import group_rows, lora_rows
from ift_kernels.lora_add import lora_add
from tests.support.lora import Factors

SHAPES = [(48, (64, 16, 96)), (96, (160, 32))]
"""Widths in whole groups of 16, and of 32: bf16 pairs are multiplied at once where the processor can."""


@pytest.mark.parametrize(("width", "parts"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_every_row_gets_its_own_adapter(
    dtype: torch.dtype, tolerance: float, width: int, parts: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    factors = Factors([1, 3, 16, 64, 200], width=width, parts=parts, dtype=dtype)
    adapter_of_row = np.array([0, -1, 4, 2, 2, 3, 2, 1, -1, 2, 2, 4, 0, 1, 1, 1, 4, 4, 4], dtype=np.int32)
    inputs, output = torch.randn(19, width).to(dtype), torch.randn(19, sum(parts)).to(dtype)
    expected = factors.expected(inputs, output, adapter_of_row)
    got = output.clone()
    lora_add(inputs, factors.table, lora_rows(adapter_of_row, 4), got)
    assert torch.allclose(got.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    base = torch.from_numpy(adapter_of_row < 0)
    assert torch.equal(got[base], output[base])


@pytest.mark.parametrize("columns", [80, 224])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_alone_and_in_any_batch(dtype: torch.dtype, columns: int) -> None:
    torch.manual_seed(1)
    factors = Factors([5, 32], width=64, parts=(columns,), dtype=dtype)
    inputs, output = torch.randn(11, 64).to(dtype), torch.randn(11, columns).to(dtype)
    together = output.clone()
    adapter_of_row = np.array([0, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0], dtype=np.int32)
    lora_add(inputs, factors.table, lora_rows(adapter_of_row, 4), together)
    for row in range(11):
        alone = output[row : row + 1].clone()
        lora_add(inputs[row : row + 1], factors.table, lora_rows(adapter_of_row[row : row + 1], 4), alone)
        assert torch.equal(alone[0], together[row])


@pytest.mark.skipif(not bf16.available(), reason="this processor has no vdpbf16ps")
def test_pairs_of_bf16_are_as_exact_as_a_shrunk_row_of_bf16_allows() -> None:
    torch.manual_seed(2)
    factors = Factors([7, 64], width=576, parts=(192, 64), dtype=torch.bfloat16)
    inputs, output = torch.randn(9, 576).bfloat16(), torch.zeros(9, 256).bfloat16()
    adapter_of_row = np.array([0, 1, 0, 0, 0, 0, 1, 1, 1], dtype=np.int32)
    lora_add(inputs, factors.table, lora_rows(adapter_of_row, 4), output)
    for row, adapter in enumerate(adapter_of_row):
        shrunk = [(inputs[row].double() @ a.double().T).bfloat16().double() for a in factors.a[adapter]]
        parts = [
            t @ b.double() * s
            for t, b, s in zip(shrunk, factors.b[adapter], factors.table.scales[adapter], strict=True)
        ]
        expected = torch.cat(parts)
        # Half a unit in the last place of the output, and now and then one of a shrunk value.
        error = (output[row].double() - expected).abs()
        assert (error <= 2**-8 * expected.abs() + 1e-3 * expected.abs().max()).all()


def test_a_part_that_an_adapter_leaves_alone_is_not_touched() -> None:
    factors = Factors([8], width=32, parts=(32, 32), dtype=torch.float32)
    factors.table.ranks[0, 1] = 0
    inputs, output = torch.randn(2, 32), torch.randn(2, 64)
    got = output.clone()
    lora_add(inputs, factors.table, lora_rows(np.zeros(2, dtype=np.int32), 4), got)
    assert torch.equal(got[:, 32:], output[:, 32:]) and not torch.equal(got[:, :32], output[:, :32])


def test_rows_are_grouped_into_tiles_of_one_adapter() -> None:
    order, tiles = group_rows(np.array([1, -1, 0, 1, 1, 0, -1, 1], dtype=np.int32), 3)
    assert order.tolist() == [2, 5, 0, 3, 4, 7]
    assert tiles.tolist() == [[0, 1, 1], [0, 2, 5], [2, 3, 1]]
    order, tiles = group_rows(np.array([-1, -1], dtype=np.int32), 4)
    assert len(order) == 0 and tiles.shape == (3, 0)
