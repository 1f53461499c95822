"""Definition of the first half of batched LoRA."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.lora import LoraRows, LoraTable, view_at


def lora_shrink_reference(inputs: Tensor, table: LoraTable, rows: LoraRows) -> Tensor:
    """See :func:`ift_kernels.lora_shrink.lora_shrink`."""
    result = torch.zeros((1, table.parts, rows.order.shape[0], table.padded_rank), dtype=torch.float32)
    tiles = zip(rows.tile_adapter.tolist(), rows.tile_start.tolist(), rows.tile_count.tolist(), strict=True)
    for adapter, start, count in tiles:
        x = inputs[rows.order[start : start + count].long()].float()
        for part in range(table.parts if count else 0):
            rank = int(table.ranks[adapter, part])
            if rank:
                factor = view_at(int(table.a_addresses[adapter, part]), (rank, inputs.shape[1]), inputs)
                result[0, part, start : start + count, :rank] = x @ factor.float().T
    return result
