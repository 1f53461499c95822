"""Tile sizes of Triton paged prefill, by shape and architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefillChoice:
    """Rows and keys a tile, warps a program and stages of the software pipeline."""

    block_m: int
    block_n: int
    warps: int
    stages: int


def planned_rows(group: int) -> int:
    """Rows of a planned tile, (query token, head of the group) pairs: 128, or more to hold one whole group.

    The plan knows no dtype; where a kernel wants smaller tiles it cuts planned ones.
    """
    rows = 128
    while rows < group:
        rows *= 2
    return rows


def prefill_choice(padded_width: int, element_size: int, biased: bool, capability: int) -> PrefillChoice:
    """For heads of ``padded_width`` (a power of two) and queries of ``element_size`` bytes an element.

    Chosen by registers of the compiled code: the widest tile without spills. Every thread holds the mask bytes of all
    its columns, which is why the bias halves the tile.
    """
    if element_size == 4:
        return PrefillChoice(32, 16, 8, 1)
    if padded_width > 128:
        return PrefillChoice(128 if capability >= 90 else 64, 32, 8, 3)
    block_n = 128 if capability >= 90 else 64
    return PrefillChoice(128, block_n // 2 if biased else block_n, 8, 3)
