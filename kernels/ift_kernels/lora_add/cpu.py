"""Batched LoRA on the CPU: a work item is a tile of up to four rows of one adapter and a part of the output.

The tile's shrunk rows stay in a scratch of the worker, so one call does both halves. Four rows share each load of a
factor. Every sum runs in the same order whether a row stands alone or in a tile. Where the processor multiplies bf16
pairs, bf16 factors use that and shrunk rows are rounded to bf16, as between PEFT's two layers.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from numba import types
from numba.core.extending import overload
from torch import Tensor

from ift_kernels.cpu_simd import bf16, openmp, simd
from ift_kernels.cpu_simd.inner import inner
from ift_kernels.cpu_simd.simd import load_i32, load_i64, load_one
from ift_kernels.lora import LoraRows, LoraTable, TableLaunch, TileLaunch
from ift_kernels.lora_add import floats, pairs

TILE_ROWS = 4
_NEXT, _WORKER, _INPUT, _OUTPUT, _IN_STRIDE, _OUT_STRIDE, _ROWS = range(7)
_A, _B, _RANKS, _SCALES, _COLUMNS, _PARTS, _WIDTH, _MAX_RANK, _SLOTS = range(7, 16)
_ORDER, _ADAPTERS, _STARTS, _COUNTS, _TILES, _SCRATCH = range(6)
"""A launch sets the first arguments, a table has the others once; those of the rows stand apart, once a batch."""
_FP = np.float32(0)
_SINGLE_THREAD = 1 << 18
"""Bytes of factors below which the calling thread does it all."""
_PAIRS = np.int16(0)
"""Kind of the workers that multiply bf16 pairs."""


def _one_row(*arguments):
    """Both halves for one row; numba compiles what ``_choose_one`` gives for the kind in its place."""


@overload(_one_row)
def _choose_one(kind, x, factor_a, factor_b, rank, width, columns, shrunk, stride, scale, y, fresh):
    return pairs.one_row if kind == types.int16 else floats.one_row


def _four_rows(*arguments):
    """The same for four rows, by ``_choose_four``."""


@overload(_four_rows)
def _choose_four(
    kind, x0, x1, x2, x3, factor_a, factor_b, rank, width, columns, shrunk, stride, scale, y0, y1, y2, y3, fresh
):
    return pairs.four_rows if kind == types.int16 else floats.four_rows


@inner
def _tile(kind, size, args, tile, part, shrunk):
    """One tile of rows and one part of the output."""
    rows = load_i64(args, _ROWS)
    adapters = load_i64(rows, _ADAPTERS)
    entry = load_i32(adapters, tile) * load_i64(args, _PARTS) + part
    rank = load_i32(load_i64(args, _RANKS), entry)
    count = load_i32(load_i64(rows, _COUNTS), tile)
    if rank == 0 or count == 0:
        return
    width, stride = load_i64(args, _WIDTH), load_i64(args, _MAX_RANK)
    factor_a, factor_b = load_i64(load_i64(args, _A), entry), load_i64(load_i64(args, _B), entry)
    scale = load_one(_FP, load_i64(args, _SCALES), entry)
    column = load_i64(load_i64(args, _COLUMNS), part)
    columns = load_i64(load_i64(args, _COLUMNS), part + 1) - column
    order = load_i64(rows, _ORDER) + 4 * load_i32(load_i64(rows, _STARTS), tile)
    x_stride, y_stride = size * load_i64(args, _IN_STRIDE), size * load_i64(args, _OUT_STRIDE)
    x, y = load_i64(args, _INPUT), load_i64(args, _OUTPUT) + size * column
    fresh = tile == 0 or load_i32(adapters, tile - 1) != load_i32(adapters, tile)
    if count < 4:
        for i in range(count):
            row = load_i32(order, i)
            _one_row(
                kind,
                x + row * x_stride,
                factor_a,
                factor_b,
                rank,
                width,
                columns,
                shrunk,
                stride,
                scale,
                y + row * y_stride,
                fresh and i == 0,
            )
        return
    r0, r1, r2, r3 = load_i32(order, 0), load_i32(order, 1), load_i32(order, 2), load_i32(order, 3)
    _four_rows(
        kind, x + r0 * x_stride, x + r1 * x_stride, x + r2 * x_stride, x + r3 * x_stride, factor_a, factor_b, rank,
        width, columns, shrunk, stride, scale,
        y + r0 * y_stride, y + r1 * y_stride, y + r2 * y_stride, y + r3 * y_stride, fresh,
    )  # fmt: skip


@inner
def _work(kind, size, args):
    """Take (tile, part) items until none is left."""
    parts = load_i64(args, _PARTS)
    rows = load_i64(args, _ROWS)
    items = load_i64(rows, _TILES) * parts
    shrunk = load_i64(rows, _SCRATCH) + openmp.take(args + 8 * _WORKER) * 4 * 4 * load_i64(args, _MAX_RANK)
    while True:
        item = openmp.take(args + 8 * _NEXT)
        if item >= items:
            return
        _tile(kind, size, args, item // parts, item % parts, shrunk)


@openmp.worker(torch.bfloat16, bf16.available)
def _worker_pairs(data):
    _work(_PAIRS, 2, openmp.address_of(data))


@openmp.worker(torch.bfloat16)
def _worker_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


@openmp.worker(torch.float32)
def _worker_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


def _worker(dtype: torch.dtype, table: LoraTable, width: int) -> openmp.Worker:
    if dtype == torch.float32:
        return _worker_fp32
    whole = not any(count % bf16.PAIR_LANES for count in (width, *table.columns))
    return _worker_pairs if whole and bf16.available() else _worker_bf16


def _of_table(table: LoraTable, dtype: torch.dtype, width: int) -> TableLaunch:
    """Arguments with what never changes of a table filled in."""
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    arguments[_A], arguments[_B] = table.a_addresses.data_ptr(), table.b_addresses.data_ptr()
    arguments[_RANKS], arguments[_SCALES] = table.ranks.data_ptr(), table.scales.data_ptr()
    arguments[_COLUMNS], arguments[_PARTS] = table.bounds.data_ptr(), table.parts
    arguments[_WIDTH], arguments[_MAX_RANK] = width, table.padded_rank
    worker = openmp.compiled(_worker(dtype, table, width))
    return TableLaunch(arguments, worker, 2 * (width * table.parts + table.columns[-1]))


def tile_launch(rows: LoraRows, padded_rank: int) -> TileLaunch:
    """Where the tiles are, the same for every layer of a batch, and a scratch for all threads."""
    parts = (rows.order, rows.tile_adapter, rows.tile_start, rows.tile_count)
    tiles = rows.tile_adapter.shape[0]
    scratch = np.empty(torch.get_num_threads() * TILE_ROWS * padded_rank, dtype=np.float32)
    addresses = [part.data_ptr() for part in parts]
    arguments = np.array((*addresses, tiles, scratch.ctypes.data), dtype=np.int64)
    return TileLaunch(arguments, arguments.ctypes.data, tiles, scratch)


def use_tiles(launch: TileLaunch, count: int) -> None:
    """From now on the first ``count`` of the tiles are what there is, for launches that are run again."""
    launch.arguments[_TILES] = count


def _threads(launch: TableLaunch, table: LoraTable, of_rows: TileLaunch) -> int:
    """One where the factors are read faster than another thread wakes."""
    tiles = of_rows.tiles
    if tiles * (table.rank_in_use or table.max_rank) * launch.rank_bytes < _SINGLE_THREAD:
        return 1
    room = of_rows.scratch.shape[0] // (TILE_ROWS * table.padded_rank)
    return int(min(torch.get_num_threads(), tiles * (len(table.columns) - 1), room))


def lora_add_cpu(inputs: Tensor, table: LoraTable, rows: LoraRows, output: Tensor) -> None:
    """See :func:`ift_kernels.lora_add.lora_add`; tiles hold at most 4 rows.

    A table is used with one dtype and one width of inputs, and from one thread at a time.
    """
    launch, of_rows = table.launch, rows.launch
    if launch is None:
        launch = table.launch = _of_table(table, inputs.dtype, inputs.shape[1])
    if of_rows is None or of_rows.scratch.shape[0] < TILE_ROWS * table.padded_rank:
        of_rows = rows.launch = tile_launch(rows, table.padded_rank)
    values = (0, 0, inputs.data_ptr(), output.data_ptr(), inputs.stride(0), output.stride(0), of_rows.address)
    threads = _threads(launch, table, of_rows)
    openmp.start(openmp.entry_point(), launch.worker, launch.arguments, threads, values)
