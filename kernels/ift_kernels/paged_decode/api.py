"""Attention of single query tokens over block tables."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.backend import INVARIANT, uses_cpu, uses_triton
from ift_kernels.instruction import InstructionBias

_CPU_DTYPES = (torch.float32, torch.bfloat16)


def paged_decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    row_sequence: Tensor,
    lengths: Tensor,
    longest: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    tiles: Tensor | None = None,
    instruction: InstructionBias | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """softmax(cap(scale q K^T) + bias) V for every row, over the first ``lengths[row]`` cached tokens of its sequence.

    query: ``[R, H, D]`` float32, bfloat16 or float16, rows may be strided; several rows may share one sequence.
    key_cache: ``[N, H_kv, D, B]``, value_cache: ``[N, H_kv, B, D']`` with ``D' >= D``, of the query's dtype or
    float8_e4m3fn. The CPU kernel wants both contiguous (keys transposed within a block), B and D' multiples of 16;
    the Triton kernel takes any strides and is fast when a token's key is contiguous:
    ``[N, H_kv, B, D].transpose(2, 3)``.
    block_tables: ``[S, M]`` int32 block ids. row_sequence: ``[R]`` int32 row of ``block_tables``.
    lengths: ``[R]`` int32, at least 1 on the CPU; 0 (a padding row of a CUDA graph) gives zeros on Triton.
    longest: an upper bound of them, which only the CPU kernel needs.
    window: only the last ``window`` tokens are seen (0: all). softcap: ``cap(s) = softcap tanh(s / softcap)``.
    tiles: ``[K + 1]`` int32 bounds of groups of at most 4 consecutive rows of one sequence with ascending lengths;
    a hint that lets a kernel load each key once for all of them, without any effect on the result.
    instruction: the bias, see :class:`ift_kernels.instruction.InstructionBias`.
    key_scale, value_scale: what a float8 cache's entries are multiplied with to give keys and values.
    backend: see :mod:`ift_kernels.backend`; float16 and float8 have no CPU kernel and run as the reference there. None
    is invariant: there is no decode kernel whose splits do not depend on the batch.
    Returns ``[R, H, D]`` contiguous. Accumulates in float32.
    """
    plain = query.dtype in _CPU_DTYPES and key_cache.dtype == query.dtype
    if uses_cpu(query, backend) and plain:
        from ift_kernels.paged_decode.cpu import paged_decode_cpu

        return paged_decode_cpu(
            query,
            key_cache,
            value_cache,
            block_tables,
            row_sequence,
            lengths,
            longest,
            scale,
            window,
            softcap,
            tiles,
            instruction,
        )
    if backend == INVARIANT:
        raise ValueError("how rows are split depends on the batch; compute them as chunks of paged_prefill")
    if uses_triton(query, backend):
        from ift_kernels.paged_decode.triton import paged_decode_triton as run
    else:
        from ift_kernels.paged_decode.reference import paged_decode_reference as run
    return run(
        query,
        key_cache,
        value_cache,
        block_tables,
        row_sequence,
        lengths,
        scale,
        window,
        softcap,
        instruction,
        key_scale,
        value_scale,
    )
