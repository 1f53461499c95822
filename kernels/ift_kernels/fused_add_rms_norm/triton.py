"""The normalisation on a GPU: a program owns a row, which is read and written once."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _fused_add_rms_norm_kernel(
    hidden_ptr, delta_ptr, weight_ptr, out_ptr, epsilon, D: tl.constexpr, BLOCK: tl.constexpr, HAS_DELTA: tl.constexpr
):
    """hidden += delta; out = weight * round(hidden / sqrt(mean(hidden^2) + epsilon))."""
    row = tl.program_id(0).to(tl.int64) * D
    offs = tl.arange(0, BLOCK)
    inside = offs < D
    dtype = hidden_ptr.dtype.element_ty
    hidden = tl.load(hidden_ptr + row + offs, mask=inside, other=0.0).to(tl.float32)
    if HAS_DELTA:
        hidden += tl.load(delta_ptr + row + offs, mask=inside, other=0.0).to(tl.float32)
        hidden = hidden.to(dtype).to(tl.float32)
        tl.store(hidden_ptr + row + offs, hidden.to(dtype), mask=inside)
    scale = tl.rsqrt(tl.sum(hidden * hidden, 0) / D + epsilon)
    normal = (hidden * scale).to(dtype).to(tl.float32)
    weight = tl.load(weight_ptr + offs, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row + offs, (weight * normal).to(dtype), mask=inside)


def fused_add_rms_norm_triton(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`ift_kernels.fused_add_rms_norm.fused_add_rms_norm`."""
    rows, width = hidden.shape
    output = torch.empty_like(hidden)
    block = triton.next_power_of_2(width)
    warps = 4 if block <= 2048 else 8 if block <= 8192 else 16
    _fused_add_rms_norm_kernel[(rows,)](
        hidden,
        hidden if delta is None else delta,
        weight,
        output,
        epsilon,
        D=width,
        BLOCK=block,
        HAS_DELTA=delta is not None,
        num_warps=warps,
    )
    return output
