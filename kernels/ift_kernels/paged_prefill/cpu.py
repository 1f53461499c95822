"""Paged prefill on the CPU: every query token is a row of the decode kernel, which shares loads among neighbours."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_decode.cpu import TILE_ROWS, paged_decode_cpu


def paged_prefill_cpu(
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
) -> Tensor:
    """See :func:`ift_kernels.paged_prefill.paged_prefill`."""
    bounds, totals = cu_query.numpy(), lengths.numpy()
    counts = np.diff(bounds)
    sequence = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    # Token t of the batch sees t + 1 - cu[s] tokens of its chunk and lengths[s] - counts[s] before it.
    seen = np.arange(1, len(sequence) + 1) + (totals - counts - bounds[:-1])[sequence]
    starts = [np.arange(first, end, TILE_ROWS) for first, end in itertools.pairwise(bounds)]
    tiles = np.concatenate([*starts, bounds[-1:]]).astype(np.int32)
    return paged_decode_cpu(
        query,
        key_cache,
        value_cache,
        block_tables,
        torch.from_numpy(sequence),
        torch.from_numpy(seen.astype(np.int32)),
        int(totals.max(initial=0)),
        scale,
        window,
        softcap,
        torch.from_numpy(tiles),
        instruction,
    )
