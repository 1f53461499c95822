"""Which query tokens each program of a prefill takes; made once a step for all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ift_kernels.paged_prefill.choices import planned_rows


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """tiles: ``[K, 2]`` int32, (sequence, first query token within its chunk) of each program, sequence -1 for none.

    block_m: rows of a tile; a row is one query token and one head of its group, so a tile holds
    ``block_m // (heads / kv_heads)`` tokens.
    """

    tiles: Tensor
    block_m: int


def prefill_plan(
    query_lengths: list[int], heads: int, kv_heads: int, width: int, device: torch.device | str
) -> PrefillPlan:
    """Tiles for chunks of ``query_lengths`` tokens, the latest tokens first; heads ``width`` wide need no other plan.

    The latest see the most keys; started first, they do not run alone at the end.
    """
    group = heads // kv_heads
    block_m = planned_rows(group)
    step = block_m // group
    tiles = [(sequence, first) for sequence, length in enumerate(query_lengths) for first in range(0, length, step)]
    tiles.sort(key=lambda tile: -tile[1])
    return PrefillPlan(torch.tensor(tiles, dtype=torch.int32).view(-1, 2).to(device, non_blocking=True), block_m)
