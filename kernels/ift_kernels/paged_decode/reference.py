"""Definition of paged decode attention, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


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
) -> Tensor:
    """Attend row by row; see :func:`ift_kernels.paged_decode.paged_decode` for shapes."""
    rows, heads, width = query.shape
    kv_heads, block_size = key_cache.shape[1], key_cache.shape[3]
    output = torch.empty_like(query)
    for row in range(rows):
        length = int(lengths[row])
        first = max(0, length - window) if window else 0
        table = block_tables[int(row_sequence[row]), : -(-length // block_size)].long()
        keys = key_cache[table].permute(1, 0, 3, 2).reshape(kv_heads, -1, width)[:, first:length]
        values = value_cache[table].transpose(1, 2).transpose(0, 2).transpose(1, 2)
        values = values.reshape(kv_heads, -1, value_cache.shape[3])[:, first:length, :width]
        q = query[row].float().view(kv_heads, heads // kv_heads, width)
        scores = q @ keys.float().transpose(1, 2) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        mixed = torch.softmax(scores, dim=-1) @ values.float()
        output[row] = mixed.view(heads, width).to(query.dtype)
    return output
