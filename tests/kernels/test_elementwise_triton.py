"""Normalisation and gating in the interpreter, against their definitions."""

from __future__ import annotations

import pytest
import torch

from ift_kernels.fused_add_rms_norm import fused_add_rms_norm
from ift_kernels.silu_and_mul import silu_and_mul

pytest.importorskip("triton", reason="Triton is there on Linux only")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (3, 80), (5, 1000)])
@pytest.mark.parametrize("with_delta", [True, False])
def test_rms_norm(dtype: torch.dtype, rows: int, width: int, with_delta: bool) -> None:
    torch.manual_seed(rows)
    hidden, weight = torch.randn(rows, width).to(dtype), torch.randn(width).to(dtype)
    delta = torch.randn(rows, width).to(dtype) if with_delta else None
    wanted_hidden = hidden if delta is None else hidden + delta
    wide = wanted_hidden.double()
    expected = weight.double() * wide / torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
    got = fused_add_rms_norm(hidden, delta, weight, 1e-5, backend="triton")
    assert torch.equal(hidden, wanted_hidden)
    unit = torch.finfo(dtype).eps
    assert torch.allclose(got.double(), expected, rtol=2 * unit, atol=4 * unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (4, 1500)])
def test_silu_and_mul(dtype: torch.dtype, rows: int, width: int) -> None:
    torch.manual_seed(width)
    gate_up = (torch.randn(rows, 2 * width) * 4).to(dtype)
    gate, up = gate_up[:, :width].double(), gate_up[:, width:].double()
    got = silu_and_mul(gate_up, backend="triton")
    unit = torch.finfo(dtype).eps
    assert torch.allclose(got.double(), gate * torch.sigmoid(gate) * up, rtol=2 * unit, atol=4 * unit)
