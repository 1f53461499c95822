"""Definition of paged decode attention, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.instruction import InstructionBias


def paged_decode_reference(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    row_sequence: Tensor,
    lengths: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    instruction: InstructionBias | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> Tensor:
    """Attend row by row; see :func:`ift_kernels.paged_decode.paged_decode` for shapes.

    Computes in float32, or in float64 if the query is float64. Caches may have any strides.
    """
    rows, heads, width = query.shape
    kv_heads, block_size = key_cache.shape[1], key_cache.shape[3]
    wide = torch.promote_types(query.dtype, torch.float32)
    output = torch.zeros((rows, heads, width), dtype=query.dtype, device=query.device)
    for row in range(rows):
        length, sequence = int(lengths[row]), int(row_sequence[row])
        if not length:
            continue
        first = max(0, length - window) if window else 0
        table = block_tables[sequence, first // block_size : -(-length // block_size)].long()
        seen = slice(first % block_size, length - first // block_size * block_size)
        keys = key_cache[table].to(wide).permute(1, 0, 3, 2).reshape(kv_heads, -1, width)[:, seen]
        values = value_cache[table].to(wide).transpose(0, 1).reshape(kv_heads, -1, value_cache.shape[3])
        q = query[row].to(wide).view(kv_heads, heads // kv_heads, width)
        scores = q @ keys.transpose(1, 2) * (scale * key_scale)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if instruction is not None:
            bias = instruction.bias[int(instruction.adapter[sequence])].to(wide) * instruction.strength[sequence]
            scores += bias.view(kv_heads, -1, 1) * instruction.mask[sequence, first:length].to(wide)
        mixed = torch.softmax(scores, dim=-1) @ values[:, seen, :width] * value_scale
        output[row] = mixed.view(heads, width).to(query.dtype)
    return output
