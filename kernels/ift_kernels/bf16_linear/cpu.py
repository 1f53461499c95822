"""Linear layers over bf16 weights on the CPU: a work item is four panels of 16 outputs, for all rows.

One row takes the four panels together, which hides the latency of its sums behind one another; it is bound by reading
them. A few rows go by tiles of four or six, which share each widened weight; while they compute, the panel that the
thread takes next is read: reading and computing overlap. Many rows have each panel widened once, into a thread's own
memory, and go by tiles of six. Every sum runs over the inputs in their order, with the same operations.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ift_kernels.bf16_linear.types import PANEL, PackedWeight
from ift_kernels.cpu_simd import openmp
from ift_kernels.cpu_simd.bf16 import high_halves, load_pairs, low_halves
from ift_kernels.cpu_simd.inner import inlined, inner
from ift_kernels.cpu_simd.simd import (
    FP32,
    LANES,
    add,
    fma,
    load,
    load_i64,
    load_one,
    prefetch,
    splat,
    store,
    store_i32,
    zero,
)

_NEXT, _THREAD, _INPUT, _OUTPUT, _ROWS, _BIAS, _PANELS, _WEIGHT, _WIDTH, _WIDENED, _SLOTS = range(11)
_GROUP = 4
_TILE, _LARGE_TILE = 4, 6
_MANY = 48
"""Rows from which on widening a panel first is faster."""
_AHEAD = 1024
"""Bytes by which a panel is asked for before it is read."""
_LINE = 64
"""Bytes that the processor reads at once."""

_SOURCES, _TARGET, _LOST = range(1, 4)
_FEW_PANELS = 16
"""Below so many, waking a second thread costs more than it saves."""


@inlined
def _put(output, column, bias, value):
    store(FP32, output, column, add(value, load(FP32, bias, column)) if bias != 0 else value)


@inlined
def _one_row(x, panel, width, y, column, bias):
    """64 outputs of one row."""
    stride = 2 * LANES * width
    p1, p2, p3 = panel + stride, panel + 2 * stride, panel + 3 * stride
    a0, a1, a2, a3 = zero(), zero(), zero(), zero()
    for k in range(0, width, 2):
        place = k * LANES
        prefetch(panel + 2 * place + _AHEAD)
        prefetch(p1 + 2 * place + _AHEAD)
        prefetch(p2 + 2 * place + _AHEAD)
        prefetch(p3 + 2 * place + _AHEAD)
        first, second = splat(load_one(FP32, x, k)), splat(load_one(FP32, x, k + 1))
        w = load_pairs(panel, place)
        a0 = fma(second, high_halves(w), fma(first, low_halves(w), a0))
        w = load_pairs(p1, place)
        a1 = fma(second, high_halves(w), fma(first, low_halves(w), a1))
        w = load_pairs(p2, place)
        a2 = fma(second, high_halves(w), fma(first, low_halves(w), a2))
        w = load_pairs(p3, place)
        a3 = fma(second, high_halves(w), fma(first, low_halves(w), a3))
    _put(y, column, bias, a0)
    _put(y, column + LANES, bias, a1)
    _put(y, column + 2 * LANES, bias, a2)
    _put(y, column + 3 * LANES, bias, a3)


@inlined
def _few_rows(x0, x1, x2, x3, panel, width, y0, y1, y2, y3, column, bias, following, step):
    """16 outputs of four rows; fewer rows are given again in the last ones' places.

    following, step: what is asked for meanwhile, so many bytes further with each line of the panel.
    """
    a0, a1, a2, a3 = zero(), zero(), zero(), zero()
    for k in range(0, width, 2):
        prefetch(following + (k >> 1) * step)
        w = load_pairs(panel, k * LANES)
        low, high = low_halves(w), high_halves(w)
        a0 = fma(splat(load_one(FP32, x0, k + 1)), high, fma(splat(load_one(FP32, x0, k)), low, a0))
        a1 = fma(splat(load_one(FP32, x1, k + 1)), high, fma(splat(load_one(FP32, x1, k)), low, a1))
        a2 = fma(splat(load_one(FP32, x2, k + 1)), high, fma(splat(load_one(FP32, x2, k)), low, a2))
        a3 = fma(splat(load_one(FP32, x3, k + 1)), high, fma(splat(load_one(FP32, x3, k)), low, a3))
    _put(y0, column, bias, a0)
    _put(y1, column, bias, a1)
    _put(y2, column, bias, a2)
    _put(y3, column, bias, a3)


@inlined
def _up_to_six_rows(x0, x1, x2, x3, x4, x5, panel, width, y0, y1, y2, y3, y4, y5, column, bias, following):
    """The same for six rows."""
    a0, a1, a2, a3, a4, a5 = zero(), zero(), zero(), zero(), zero(), zero()
    for k in range(0, width, 2):
        prefetch(following + 2 * k * LANES)
        w = load_pairs(panel, k * LANES)
        low, high = low_halves(w), high_halves(w)
        a0 = fma(splat(load_one(FP32, x0, k + 1)), high, fma(splat(load_one(FP32, x0, k)), low, a0))
        a1 = fma(splat(load_one(FP32, x1, k + 1)), high, fma(splat(load_one(FP32, x1, k)), low, a1))
        a2 = fma(splat(load_one(FP32, x2, k + 1)), high, fma(splat(load_one(FP32, x2, k)), low, a2))
        a3 = fma(splat(load_one(FP32, x3, k + 1)), high, fma(splat(load_one(FP32, x3, k)), low, a3))
        a4 = fma(splat(load_one(FP32, x4, k + 1)), high, fma(splat(load_one(FP32, x4, k)), low, a4))
        a5 = fma(splat(load_one(FP32, x5, k + 1)), high, fma(splat(load_one(FP32, x5, k)), low, a5))
    _put(y0, column, bias, a0)
    _put(y1, column, bias, a1)
    _put(y2, column, bias, a2)
    _put(y3, column, bias, a3)
    _put(y4, column, bias, a4)
    _put(y5, column, bias, a5)


@inlined
def _widen(panel, width, widened):
    """A panel as float32, ``[width, 16]``."""
    for k in range(0, width, 2):
        prefetch(panel + 2 * k * LANES + _AHEAD)
        w = load_pairs(panel, k * LANES)
        store(FP32, widened, k * LANES, low_halves(w))
        store(FP32, widened, (k + 1) * LANES, high_halves(w))


@inlined
def _six_rows(x0, x1, x2, x3, x4, x5, widened, width, y0, y1, y2, y3, y4, y5, column, bias):
    """16 outputs of six rows from a widened panel."""
    a0, a1, a2, a3, a4, a5 = zero(), zero(), zero(), zero(), zero(), zero()
    for k in range(width):
        w = load(FP32, widened, k * LANES)
        a0 = fma(splat(load_one(FP32, x0, k)), w, a0)
        a1 = fma(splat(load_one(FP32, x1, k)), w, a1)
        a2 = fma(splat(load_one(FP32, x2, k)), w, a2)
        a3 = fma(splat(load_one(FP32, x3, k)), w, a3)
        a4 = fma(splat(load_one(FP32, x4, k)), w, a4)
        a5 = fma(splat(load_one(FP32, x5, k)), w, a5)
    _put(y0, column, bias, a0)
    _put(y1, column, bias, a1)
    _put(y2, column, bias, a2)
    _put(y3, column, bias, a3)
    _put(y4, column, bias, a4)
    _put(y5, column, bias, a5)


@inner
def _many_rows(args, first, end, widened):
    """Panels ``first .. end-1`` for many rows."""
    rows, width = load_i64(args, _ROWS), load_i64(args, _WIDTH)
    columns = LANES * load_i64(args, _PANELS)
    x, y, bias = load_i64(args, _INPUT), load_i64(args, _OUTPUT), load_i64(args, _BIAS)
    weight, size = load_i64(args, _WEIGHT), 2 * LANES * width
    for panel in range(first, end):
        _widen(weight + panel * size, width, widened)
        for row in range(0, rows, _LARGE_TILE):
            r1, r2, r3 = min(row + 1, rows - 1), min(row + 2, rows - 1), min(row + 3, rows - 1)
            r4, r5 = min(row + 4, rows - 1), min(row + 5, rows - 1)
            _six_rows(
                x + 4 * row * width, x + 4 * r1 * width, x + 4 * r2 * width, x + 4 * r3 * width, x + 4 * r4 * width,
                x + 4 * r5 * width, widened, width,
                y + 4 * row * columns, y + 4 * r1 * columns, y + 4 * r2 * columns, y + 4 * r3 * columns,
                y + 4 * r4 * columns, y + 4 * r5 * columns, panel * LANES, bias,
            )  # fmt: skip


@inner
def _group(args, first, end, after):
    """Panels ``first .. end-1`` for a few rows. after: the panel that this thread takes next."""
    rows, width = load_i64(args, _ROWS), load_i64(args, _WIDTH)
    columns = LANES * load_i64(args, _PANELS)
    x, y, bias = load_i64(args, _INPUT), load_i64(args, _OUTPUT), load_i64(args, _BIAS)
    weight, size = load_i64(args, _WEIGHT), 2 * LANES * width
    if rows == 1 and end - first == _GROUP:
        _one_row(x, weight + first * size, width, y, first * LANES, bias)
        return
    tiles = (rows + _TILE - 1) // _TILE
    step = _LINE // tiles
    for panel in range(first, end):
        p, following = weight + panel * size, weight + (panel + 1 if panel + 1 < end else after) * size
        if _TILE < rows <= _LARGE_TILE:
            r5 = rows - 1
            _up_to_six_rows(
                x, x + 4 * width, x + 8 * width, x + 12 * width, x + 16 * width, x + 4 * r5 * width, p, width,
                y, y + 4 * columns, y + 8 * columns, y + 12 * columns, y + 16 * columns, y + 4 * r5 * columns,
                panel * LANES, bias, following,
            )  # fmt: skip
            continue
        for tile in range(tiles):
            row = tile * _TILE
            r1, r2, r3 = min(row + 1, rows - 1), min(row + 2, rows - 1), min(row + 3, rows - 1)
            _few_rows(
                x + 4 * row * width, x + 4 * r1 * width, x + 4 * r2 * width, x + 4 * r3 * width, p, width,
                y + 4 * row * columns, y + 4 * r1 * columns, y + 4 * r2 * columns, y + 4 * r3 * columns,
                panel * LANES, bias, following + tile * (width // 2) * step, step,
            )  # fmt: skip


@openmp.worker(torch.float32)
def _worker(data):
    args = openmp.address_of(data)
    panels, many = load_i64(args, _PANELS), load_i64(args, _ROWS) >= _MANY
    widened = load_i64(args, _WIDENED) + 4 * LANES * load_i64(args, _WIDTH) * openmp.take(args + 8 * _THREAD)
    first = openmp.take(args + 8 * _NEXT) * _GROUP
    while first < panels:
        after = openmp.take(args + 8 * _NEXT) * _GROUP
        if many:
            _many_rows(args, first, min(first + _GROUP, panels), widened)
        else:
            _group(args, first, min(first + _GROUP, panels), min(after, panels - 1))
        first = after


@inlined
def _upper_halves(pair):
    """Of two float32 side by side, as two bf16."""
    return ((pair >> 16) & 0xFFFF) | ((pair >> 32) & 0xFFFF0000)


@inner
def _pack_panel(source, target, width):
    """16 rows of float32 as a panel, a line of each row at a time; bits that are lost."""
    lost, stride = 0, 4 * width
    for first in range(0, width // 2, LANES // 2):
        for row in range(PANEL):
            line = source + row * stride + 8 * first
            for k in range(LANES // 2):
                pair = load_i64(line, k)
                lost |= pair & 0x0000FFFF0000FFFF
                store_i32(target + 4 * row, (first + k) * PANEL, _upper_halves(pair))
    return lost


@openmp.worker(torch.float32)
def _pack(data):
    args = openmp.address_of(data)
    panels, width = load_i64(args, _PANELS), load_i64(args, _WIDTH)
    sources, target = load_i64(args, _SOURCES), load_i64(args, _TARGET)
    while True:
        first = openmp.take(args + 8 * _NEXT) * _GROUP
        if first >= panels or load_i64(args, _LOST) != 0:
            return
        for panel in range(first, min(first + _GROUP, panels)):
            if _pack_panel(load_i64(sources, panel), target + panel * 2 * PANEL * width, width) != 0:
                store_i32(args + 8 * _LOST, 0, 1)


def pack_weights_cpu(weights: Sequence[Tensor]) -> PackedWeight | None:
    """See :func:`ift_kernels.bf16_linear.pack_weight`. weights: float32, contiguous."""
    width = weights[0].shape[1]
    sources = np.concatenate(
        [weight.data_ptr() + 4 * PANEL * width * np.arange(len(weight) // PANEL) for weight in weights]
    )
    panels = torch.empty((len(sources), width // 2, PANEL, 2), dtype=torch.bfloat16)
    arguments = np.zeros(_SLOTS, dtype=np.int64)
    arguments[_PANELS], arguments[_WIDTH] = len(sources), width
    arguments[_SOURCES], arguments[_TARGET] = sources.ctypes.data, panels.data_ptr()
    threads = torch.get_num_threads() if len(sources) >= _FEW_PANELS else 1
    openmp.run(openmp.entry_point(), openmp.compiled(_pack), arguments, threads)
    return None if arguments[_LOST] else PackedWeight(panels)


def bf16_linear_cpu(inputs: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.bf16_linear.bf16_linear`. A packed weight is used from one thread at a time."""
    if weight.launch is None:
        outputs, width = weight.shape
        arguments = np.zeros(_SLOTS, dtype=np.int64)
        arguments[_PANELS:_WIDENED] = (outputs // PANEL, weight.panels.data_ptr(), width)
        threads = min(torch.get_num_threads(), -(-outputs // (PANEL * _GROUP)))
        weight.launch = arguments, openmp.compiled(_worker), outputs, threads
    arguments, worker, columns, threads = weight.launch
    rows = inputs.shape[0]
    output = torch.empty((rows, columns), dtype=torch.float32)
    values = (0, 0, inputs.data_ptr(), output.data_ptr(), rows, 0 if bias is None else bias.data_ptr())
    if rows >= _MANY:
        widened = torch.empty((threads, inputs.shape[1], PANEL), dtype=torch.float32)
        arguments[_WIDENED] = widened.data_ptr()
    openmp.start(openmp.entry_point(), worker, arguments, threads, values)
    return output
