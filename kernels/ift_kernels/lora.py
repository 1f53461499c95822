"""What the LoRA operations share: where the factors of every adapter are, and which rows want which adapter."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LANES = 16


@dataclass(slots=True)
class TableLaunch:
    """What the CPU's kernel keeps of a table: its arguments, the worker's address, bytes of factors a tile and rank."""

    arguments: NDArray[np.int64]
    worker: int
    rank_bytes: int


@dataclass(slots=True)
class TileLaunch:
    """What the CPU's kernel keeps of the tiles of a batch: their arguments with the address of these, how many there
    are, and a scratch of so many threads times ranks."""

    arguments: NDArray[np.int64]
    address: int
    tiles: int
    scratch: NDArray[np.float32]


@dataclass(slots=True)
class LoraTable:
    """Low-rank factors of A adapters for one linear layer whose output has P parts (queries, keys, values, say).

    a_addresses, b_addresses: ``[A, P]`` int64 device addresses of ``A [rank, K]`` and of ``B^T [rank, N_p]``, both
    contiguous, 16-byte aligned and of the layer's dtype; ranks: ``[A, P]`` int32, 0 where the adapter leaves the part
    alone; scales: ``[A, P]`` float32. Addresses rather than one stacked tensor, so that ranks may differ without
    padding and an adapter's memory is its own. columns: P + 1 bounds of the parts in the output; bounds: the same on
    the device, int64. max_rank: an upper bound of the ranks. rank_in_use: the largest rank there is now, by which the
    CPU chooses its threads; 0: not known. lanes: whether all parts are whole vectors of 16. launch: what the CPU's
    kernel keeps of a table between calls, so the tensors of a table are changed in place only.
    """

    a_addresses: Tensor
    b_addresses: Tensor
    ranks: Tensor
    scales: Tensor
    bounds: Tensor
    columns: tuple[int, ...]
    max_rank: int
    rank_in_use: int = 0
    lanes: bool = field(init=False, repr=False, compare=False)
    launch: TableLaunch | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.lanes = not any(column % _LANES for column in self.columns)

    @property
    def parts(self) -> int:
        """How many parts the output has."""
        return len(self.columns) - 1

    @property
    def padded_rank(self) -> int:
        """``max_rank`` rounded up to 16, the width of shrunk rows."""
        return -(-self.max_rank // 16) * 16


@dataclass(slots=True)
class LoraRows:
    """Rows of a batch sorted by adapter and cut into tiles of one adapter each; rows of the base model are absent.

    order: ``[n]`` int32 row ids. tile_adapter, tile_start, tile_count: ``[M]`` int32: rows
    ``order[start : start + count]`` belong to ``adapter``; a count of 0 is padding (grids of CUDA graphs are fixed).
    launch: what the CPU's kernel keeps between the layers of a batch.
    """

    order: Tensor
    tile_adapter: Tensor
    tile_start: Tensor
    tile_count: Tensor
    launch: TileLaunch | None = field(default=None, init=False, repr=False, compare=False)


def group_rows(adapter_of_row: NDArray[np.int32], tile_rows: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """``(order [n], tiles [3, M])`` of :class:`LoraRows` for rows whose adapter is given, -1 for the base model."""
    order = np.argsort(adapter_of_row, kind="stable").astype(np.int32)
    order = order[np.searchsorted(adapter_of_row[order], 0) :]
    adapters = adapter_of_row[order]
    if not len(order):
        return order, np.zeros((3, 0), dtype=np.int32)
    begins = np.flatnonzero(np.r_[True, adapters[1:] != adapters[:-1]])
    ends = np.r_[begins[1:], len(order)]
    starts = np.concatenate([np.arange(b, e, tile_rows) for b, e in zip(begins, ends, strict=True)])
    limits = np.repeat(ends, -(-(ends - begins) // tile_rows))
    counts = np.minimum(limits - starts, tile_rows)
    return order, np.stack((adapters[starts], starts, counts)).astype(np.int32)


def lora_rows(adapter_of_row: NDArray[np.int32], tile_rows: int) -> LoraRows:
    """:class:`LoraRows` on the CPU."""
    order, tiles = group_rows(adapter_of_row, tile_rows)
    return LoraRows(torch.from_numpy(order), *(torch.from_numpy(np.ascontiguousarray(part)) for part in tiles))


def view_at(address: int, shape: tuple[int, int], like: Tensor) -> Tensor:
    """The matrix at a CPU address, as a view. For references; the caller keeps the memory alive."""
    import ctypes

    count = shape[0] * shape[1] * like.element_size()
    buffer = (ctypes.c_uint8 * count).from_address(address)
    return torch.frombuffer(buffer, dtype=like.dtype).view(shape)
