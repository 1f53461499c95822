"""Attention of prompt chunks, many tokens a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.backend import INVARIANT, uses_cpu, uses_triton
from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_prefill.plan import PrefillPlan

_CPU_DTYPES = (torch.float32, torch.bfloat16)


def paged_prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    cu_query: Tensor,
    lengths: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    plan: PrefillPlan | None = None,
    instruction: InstructionBias | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Causal softmax(cap(scale q K^T) + bias) V of S chunks that lie side by side, over caches that hold them already.

    query: ``[T, H, D]``, tokens ``cu_query[s] .. cu_query[s + 1] - 1`` are the last ones of sequence s.
    cu_query: ``[S + 1]`` int32. lengths: ``[S]`` int32, cached tokens of each sequence, this chunk included; the i-th
    token of a chunk of n sees ``lengths[s] - n + i + 1`` tokens, or the last ``window`` of them (0: all).
    block_tables: ``[S, M]`` int32. Caches, dtypes, softcap, instruction and scales are those of
    :func:`ift_kernels.paged_decode.paged_decode`.
    plan: of :func:`prefill_plan`, for Triton; it is the same for every layer. None makes one, which waits for the
    device.
    backend: see :mod:`ift_kernels.backend`; float16 and float8 have no CPU kernel and run as the reference there.
    Returns ``[T, H, D]`` contiguous. Accumulates in float32.
    """
    arguments = (query, key_cache, value_cache, block_tables, cu_query, lengths, scale, window, softcap)
    plain = query.dtype in _CPU_DTYPES and key_cache.dtype == query.dtype
    if uses_cpu(query, backend) and plain:
        from ift_kernels.paged_prefill.cpu import paged_prefill_cpu

        return paged_prefill_cpu(*arguments, instruction)
    if uses_triton(query, backend):
        from ift_kernels.paged_prefill.triton import paged_prefill_triton

        fixed = backend == INVARIANT
        return paged_prefill_triton(*arguments, plan, instruction, key_scale, value_scale, fixed=fixed)
    from ift_kernels.paged_prefill.reference import paged_prefill_reference

    return paged_prefill_reference(*arguments, instruction, key_scale, value_scale)
