"""The Triton halves of batched LoRA in the interpreter, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ift_kernels.lora import LoraRows, lora_rows
from ift_kernels.lora_add import lora_add
from tests.support.lora import Factors

pytest.importorskip("triton", reason="Triton is there on Linux only")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 4e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("width", "parts"), [(48, (64, 16, 80)), (300, (33,)), (600, (48, 48))])
def test_every_row_gets_its_own_adapter(
    dtype: torch.dtype, tolerance: float, width: int, parts: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    factors = Factors([1, 7, 16, 70], width=width, parts=parts, dtype=dtype)
    adapter_of_row = np.array([0, -1, 3, 2, 2, 3, 2, 1, -1] + [2] * 17, dtype=np.int32)
    total = sum(parts)
    inputs, output = torch.randn(26, width).to(dtype), torch.randn(26, total + 16)[:, :total].to(dtype)
    expected = factors.expected(inputs, output, adapter_of_row)
    got = output.clone()
    lora_add(inputs, factors.table, lora_rows(adapter_of_row, 16), got, backend="triton")
    assert torch.allclose(got.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    base = torch.from_numpy(adapter_of_row < 0)
    assert torch.equal(got[base], output[base])


def test_padding_tiles_and_absent_parts_are_skipped() -> None:
    torch.manual_seed(1)
    factors = Factors([8, 8], width=32, parts=(32, 32), dtype=torch.float32)
    factors.table.ranks[1, 0] = 0
    rows = lora_rows(np.array([1, 0, -1], dtype=np.int32), 16)
    zeros = torch.zeros(2, dtype=torch.int32)
    padded = LoraRows(
        torch.cat((rows.order, zeros)),
        *(torch.cat((part, zeros)) for part in (rows.tile_adapter, rows.tile_start, rows.tile_count)),
    )
    inputs, output = torch.randn(3, 32), torch.randn(3, 64)
    expected = factors.expected(inputs, output, np.array([1, 0, -1]))
    expected[0, :32] = output[0, :32].double()
    lora_add(inputs, factors.table, padded, output, backend="triton")
    assert torch.allclose(output.double(), expected, atol=1e-5)
