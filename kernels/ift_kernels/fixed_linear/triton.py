"""The linear layer on a GPU: a program owns a tile of rows and outputs, and goes through K from first to last."""

# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS = 64, 32
"""Of a tile: as few rows as Hopper's matrix instructions take, and so few columns that one token's programs are as many
as the multiprocessors for a layer 4,096 wide."""


@triton.jit(do_not_specialize=["rows"])
def _fixed_linear_kernel(
    x_ptr, w_ptr, bias_ptr, y_ptr, stride_x, rows,
    N: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """y[m, n] = sum_k x[m, k] w[n, k] + bias[n]; tiles of rows are neighbours, so that they share the weights."""
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    row_ok, column_ok = offs_m < rows, offs_n < N
    x_row = x_ptr + offs_m.to(tl.int64)[:, None] * stride_x
    w_row = w_ptr + offs_n.to(tl.int64)[None, :] * K
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        k = first + offs_k
        x = tl.load(x_row + k[None, :], mask=row_ok[:, None] & (k < K)[None, :], other=0.0)
        w = tl.load(w_row + k[:, None], mask=column_ok[None, :] & (k < K)[:, None], other=0.0)
        acc = tl.dot(x, w, acc, input_precision="ieee")
    if HAS_BIAS:
        acc += tl.load(bias_ptr + offs_n, mask=column_ok, other=0.0).to(tl.float32)[None, :]
    y = y_ptr + offs_m.to(tl.int64)[:, None] * N + offs_n[None, :]
    tl.store(y, acc.to(y_ptr.dtype.element_ty), mask=row_ok[:, None] & column_ok[None, :])


def fixed_linear_triton(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.fixed_linear.fixed_linear`."""
    rows, outputs = inputs.shape[0], weight.shape[0]
    output = torch.empty((rows, outputs), dtype=inputs.dtype, device=inputs.device)
    if not rows:
        return output
    wide = inputs.element_size() == 4  # float32 products run on the ordinary cores, with smaller tiles in registers
    _fixed_linear_kernel[(triton.cdiv(rows, _ROWS), triton.cdiv(outputs, _COLUMNS))](
        inputs, weight, bias, output, inputs.stride(0), rows,
        N=outputs, K=weight.shape[1], BLOCK_M=_ROWS, BLOCK_N=_COLUMNS, BLOCK_K=32 if wide else 128,
        HAS_BIAS=bias is not None, STAGES=2 if wide else 4, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return output
