"""Definition of the second half of batched LoRA."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.lora import LoraRows, LoraTable, view_at


def lora_expand_reference(shrunk: Tensor, table: LoraTable, rows: LoraRows, output: Tensor) -> None:
    """See :func:`ift_kernels.lora_expand.lora_expand`."""
    total = shrunk.sum(0)
    tiles = zip(rows.tile_adapter.tolist(), rows.tile_start.tolist(), rows.tile_count.tolist(), strict=True)
    for adapter, start, count in tiles:
        chosen = rows.order[start : start + count].long()
        for part in range(table.parts if count else 0):
            rank = int(table.ranks[adapter, part])
            if not rank:
                continue
            first, end = table.columns[part], table.columns[part + 1]
            factor = view_at(int(table.b_addresses[adapter, part]), (rank, end - first), output)
            change = float(table.scales[adapter, part]) * (total[part, start : start + count, :rank] @ factor.float())
            output[chosen, first:end] = (output[chosen, first:end].float() + change).to(output.dtype)
