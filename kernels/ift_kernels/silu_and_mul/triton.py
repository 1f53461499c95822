"""The gated activation on a GPU: a program owns a stretch of a row."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _silu_and_mul_kernel(gate_up_ptr, out_ptr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """out = round(gate / (1 + exp(-gate))) * up."""
    row = tl.program_id(0).to(tl.int64)
    offs = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offs < WIDTH
    place = gate_up_ptr + row * 2 * WIDTH + offs
    gate = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(place + WIDTH, mask=inside, other=0.0).to(tl.float32)
    dtype = gate_up_ptr.dtype.element_ty
    active = (gate / (1.0 + tl.exp(-gate))).to(dtype).to(tl.float32)
    tl.store(out_ptr + row * WIDTH + offs, (active * up).to(dtype), mask=inside)


def silu_and_mul_triton(gate_up: Tensor) -> Tensor:
    """See :func:`ift_kernels.silu_and_mul.silu_and_mul`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    output = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    _silu_and_mul_kernel[(rows, triton.cdiv(width, _BLOCK))](gate_up, output, WIDTH=width, BLOCK=_BLOCK, num_warps=4)
    return output
