"""Tile sizes of Triton paged decode, by shape and architecture."""

from __future__ import annotations

from dataclasses import dataclass

_TILE_BYTES = 16384
"""Of keys, and as many of values. Two tiles of each in flight take 72 KiB, so three programs fit on an H200's SM."""


@dataclass(frozen=True, slots=True)
class DecodeChoice:
    """Keys a tile, warps a program and stages of the software pipeline."""

    block_n: int
    warps: int
    stages: int


def decode_choice(padded_width: int, element_size: int) -> DecodeChoice:
    """For heads of ``padded_width`` (a power of two) and a cache of ``element_size`` bytes an element.

    A tile is as many bytes whatever the width, because what counts are bytes in flight; float8 tiles hold no more keys
    than bfloat16 ones, whose registers are the limit once they are widened. The block ids of a tile are pipelined
    before its keys, which halves the depth: five stages keep two tiles in flight, three only one. Float32 products
    run on the ordinary cores: with 8 warps they do not spill.
    """
    block_n = max(16, min(128, _TILE_BYTES // (padded_width * max(element_size, 2))))
    return DecodeChoice(block_n, 8, 2) if element_size == 4 else DecodeChoice(block_n, 4, 5)


def programs_at_once(capability: int) -> int:
    """Split programs that fit on one multiprocessor, by its shared memory (164 KiB on sm_80, 228 from sm_90)."""
    return 3 if capability >= 90 else 2


def split_capacity(rows: int, kv_heads: int, slots: int, table_tiles: int) -> tuple[int, int, int]:
    """(work items in one wave, largest number of extra items, items of the grid), each per key-value head.

    slots: programs that the device runs at once. table_tiles: tiles that a row of the block tables can hold.
    Rows are cut so that all programs together make a few waves: with few rows two, since a program that finds no
    work costs a launch, with many rows four, so that the last wave is a small part. None of the three depends on the
    lengths, so the grid stays what it was when a CUDA graph is replayed.
    """
    one_wave = -(-slots // kv_heads)
    waves = 4 if rows * kv_heads >= slots else 2
    items = min(rows + waves * one_wave, rows * table_tiles)
    return one_wave, waves * one_wave, max(items, 1)
