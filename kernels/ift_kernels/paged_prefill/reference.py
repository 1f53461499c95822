"""Definition of paged prefill attention, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.instruction import InstructionBias


def paged_prefill_reference(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    cu_query: Tensor,
    lengths: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    instruction: InstructionBias | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> Tensor:
    """Attend sequence by sequence; see :func:`ift_kernels.paged_prefill.paged_prefill` for shapes.

    Computes in float32, or in float64 if the query is float64. Caches may have any strides.
    """
    tokens, heads, width = query.shape
    kv_heads, block_size = key_cache.shape[1], key_cache.shape[3]
    wide = torch.promote_types(query.dtype, torch.float32)
    output = torch.zeros((tokens, heads, width), dtype=query.dtype, device=query.device)
    bounds = cu_query.tolist()
    for sequence, length in enumerate(lengths.tolist()):
        first, end = bounds[sequence], bounds[sequence + 1]
        if first == end:
            continue
        table = block_tables[sequence, : -(-length // block_size)].long()
        keys = key_cache[table].to(wide).permute(1, 0, 3, 2).reshape(kv_heads, 1, -1, width)[:, :, :length]
        values = value_cache[table].to(wide).transpose(0, 1).reshape(kv_heads, 1, -1, value_cache.shape[3])
        q = query[first:end].to(wide).transpose(0, 1).reshape(kv_heads, heads // kv_heads, -1, width)
        scores = q @ keys.transpose(2, 3) * (scale * key_scale)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if instruction is not None:
            bias = instruction.bias[int(instruction.adapter[sequence])].to(wide) * instruction.strength[sequence]
            scores += bias.view(kv_heads, -1, 1, 1) * instruction.mask[sequence, :length].to(wide)
        places = torch.arange(length - (end - first), length, device=query.device)[:, None]
        cached = torch.arange(length, device=query.device)[None]
        hidden = (cached > places) | (cached <= places - window) if window else cached > places
        weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
        mixed = weights @ values[:, :, :length, :width] * value_scale
        output[first:end] = mixed.reshape(heads, end - first, width).transpose(0, 1).to(query.dtype)
    return output
