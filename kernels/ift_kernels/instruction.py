"""The attention bias towards instruction tokens, as the kernels take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class InstructionBias:
    """What attention adds to the scores of one layer.

    For query head h of sequence s and the key at position j,
    ``score = cap(scale q k_j) + strength[s] * bias[adapter[s], h] * mask[s, j]``. The bias comes after the
    soft-cap: the cap would otherwise shrink it by an amount that depends on the score.

    mask: ``[S, L]`` uint8, 1 at instruction tokens, one byte a position; row s belongs to row s of the block tables,
    L is at least the longest length (reads stay below the length rounded up to 16, so L a multiple of 16 spares
    the CPU kernel a copy).
    bias: ``[A, H]`` float32, contiguous, one row an adapter, row 0 zeros. adapter: ``[S]`` int32.
    strength: ``[S]`` float32.
    """

    mask: Tensor
    bias: Tensor
    adapter: Tensor
    strength: Tensor


def mark_instruction(mask: Tensor, sequence: Tensor, positions: Tensor, segments: Tensor, slots: Tensor) -> None:
    """``mask[sequence[t], positions[t]] = segments[t] == 1`` for every token with a slot (negative: padding)."""
    kept = slots >= 0
    rows, columns = sequence[kept].long(), positions[kept].long()
    mask[rows, columns] = (segments[kept] == 1).to(torch.uint8)
