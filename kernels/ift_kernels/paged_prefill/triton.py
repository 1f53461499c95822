"""Paged prefill attention in Triton: flash attention over block tables, a program a tile of queries and key-value head.

A row of a tile is one query token and one head of the group, tokens outermost, so that all heads of a group share the
keys that are loaded. Tiles of keys that every row sees whole are not masked at all; those at the start of a sliding
window and at the diagonal are.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ift_kernels.device import properties
from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_prefill.choices import prefill_choice
from ift_kernels.paged_prefill.plan import PrefillPlan, prefill_plan

_LOG2E = math.log2(math.e)


@triton.jit
def _attend_tile(
    query, top, total, mixed, boost, place, position, length,
    key_ptr, value_ptr, table_ptr, mask_ptr, score_scale, cap, window,
    stride_kn, stride_kd, stride_kb, stride_vn, stride_vb,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Keys ``position .. position + BLOCK_N - 1`` for all rows of a tile; ``place`` is each row's own position."""
    offs_d = tl.arange(0, BLOCK_D)
    n = position + tl.arange(0, BLOCK_N)
    width_ok = offs_d < WIDTH
    if MASKED:
        n_ok = n < length
        if HAS_WINDOW:
            n_ok &= n > tl.min(place, 0) - window
    if BLOCK % BLOCK_N == 0:
        block = tl.load(table_ptr + position // BLOCK).to(tl.int64)
    elif MASKED:
        block = tl.load(table_ptr + n // BLOCK, mask=n_ok, other=0).to(tl.int64)
    else:
        block = tl.load(table_ptr + n // BLOCK).to(tl.int64)
    key_ptrs = key_ptr + (block * stride_kn + (n % BLOCK) * stride_kb)[None, :] + offs_d[:, None] * stride_kd
    value_ptrs = value_ptr + (block * stride_vn + (n % BLOCK) * stride_vb)[:, None] + offs_d[None, :]
    if MASKED:
        key = tl.load(key_ptrs, mask=n_ok[None, :] & width_ok[:, None], other=0.0)
        value = tl.load(value_ptrs, mask=n_ok[:, None] & width_ok[None, :], other=0.0)
    elif BLOCK_D != WIDTH:
        key = tl.load(key_ptrs, mask=width_ok[:, None], other=0.0)
        value = tl.load(value_ptrs, mask=width_ok[None, :], other=0.0)
    else:
        key = tl.load(key_ptrs)
        value = tl.load(value_ptrs)
    if HAS_BIAS:
        # Asked for here, the bytes arrive while the product runs.
        mask = tl.load(mask_ptr + n, mask=n_ok, other=0) if MASKED else tl.load(mask_ptr + n)
    scores = tl.dot(query, key.to(query.dtype), input_precision="ieee")
    if HAS_CAP:
        # cap tanh(x) = cap - 2 cap / (e^2x + 1); the scale holds 2 log2(e) / softcap.
        scores = cap - 2 * cap / (tl.exp2(scores * score_scale) + 1)
    elif HAS_BIAS or MASKED:
        scores *= score_scale
    if HAS_BIAS:
        scores += boost[:, None] * mask.to(tl.float32)[None, :]
    if MASKED:
        seen = n[None, :] <= place[:, None]
        if HAS_WINDOW:
            seen &= n[None, :] > place[:, None] - window
        scores = tl.where(seen, scores, float("-inf"))
    if HAS_CAP or HAS_BIAS or MASKED:
        new_top = tl.maximum(top, tl.max(scores, 1))
        # A row that has seen nothing yet keeps -inf, and subtracts 0.
        shift = tl.where(new_top == float("-inf"), 0.0, new_top) if MASKED else new_top
        weights = tl.exp2(scores - shift[:, None])
    else:
        # The scale is positive, so it can wait for the subtraction, where it costs nothing.
        new_top = tl.maximum(top, tl.max(scores, 1) * score_scale)
        shift = new_top
        weights = tl.exp2(scores * score_scale - shift[:, None])
    decay = tl.exp2(top - shift)
    total = total * decay + tl.sum(weights, 1)
    mixed = tl.dot(weights.to(query.dtype), value.to(query.dtype), mixed * decay[:, None], input_precision="ieee")
    return new_top, total, mixed


@triton.jit(
    do_not_specialize=["window", "stride_table", "stride_mask"],
    do_not_specialize_on_alignment=[
        "tables_ptr",
        "tiles_ptr",
        "bounds_ptr",
        "lengths_ptr",
        "mask_ptr",
        "bias_ptr",
        "adapter_ptr",
        "strength_ptr",
    ],
)
def _paged_prefill_kernel(
    query_ptr, key_ptr, value_ptr, tables_ptr, tiles_ptr, bounds_ptr, lengths_ptr,
    mask_ptr, bias_ptr, adapter_ptr, strength_ptr, output_ptr,
    score_scale, cap, value_scale, window,
    stride_token, stride_head, stride_kn, stride_kh, stride_kd, stride_kb, stride_vn, stride_vh, stride_vb,
    stride_table, stride_mask,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    PLANNED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.load(tiles_ptr + tile * 2).to(tl.int64)
    if sequence < 0:
        return
    first = tl.load(tiles_ptr + tile * 2 + 1)
    begin = tl.load(bounds_ptr + sequence)
    count = tl.load(bounds_ptr + sequence + 1) - begin
    length = tl.load(lengths_ptr + sequence)
    # This program's rows of the planned tile: all of them, or a part where the plan's tile is too large for the dtype.
    tokens: tl.constexpr = PLANNED // GROUP
    offset = tl.program_id(2) * BLOCK_M
    earliest = length - count + first + offset // GROUP
    latest = tl.minimum(length - count + first + tl.minimum((offset + BLOCK_M - 1) // GROUP, tokens - 1), length - 1)
    if earliest > latest:
        return

    offs_m = offset + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, BLOCK_D)
    token = offs_m // GROUP
    head = kv_head * GROUP + offs_m % GROUP
    row_ok = (token < tokens) & (first + token < count)
    row = (begin + first + token).to(tl.int64)
    stored = row_ok[:, None] & (offs_d < WIDTH)[None, :]
    query_at = row[:, None] * stride_token + head[:, None] * stride_head + offs_d[None, :]
    query = tl.load(query_ptr + query_at, mask=stored, other=0.0)
    tables_ptr += sequence * stride_table
    key_ptr += kv_head.to(tl.int64) * stride_kh
    value_ptr += kv_head.to(tl.int64) * stride_vh
    boost = 0.0
    if HAS_BIAS:
        mask_ptr += sequence * stride_mask
        boost = tl.load(strength_ptr + sequence) * 1.4426950408889634
        adapter = tl.load(adapter_ptr + sequence).to(tl.int64)
        boost *= tl.load(bias_ptr + adapter * HEADS + head, mask=row_ok, other=0.0)

    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    place = length - count + first + token
    # Keys before whole_end are seen by every row of the tile; with a window, those from whole_start on.
    whole_end = (earliest + 1) // BLOCK_N * BLOCK_N
    start = 0
    whole_start = 0
    if HAS_WINDOW:
        start = tl.maximum(earliest - window + 1, 0) // BLOCK_N * BLOCK_N
        whole_start = tl.minimum(tl.cdiv(tl.maximum(latest - window + 1, 0), BLOCK_N) * BLOCK_N, whole_end)
        for position in tl.range(start, whole_start, BLOCK_N, num_stages=STAGES):
            top, total, mixed = _attend_tile(
                query, top, total, mixed, boost, place, position, length,
                key_ptr, value_ptr, tables_ptr, mask_ptr, score_scale, cap, window,
                stride_kn, stride_kd, stride_kb, stride_vn, stride_vb,
                WIDTH, BLOCK, BLOCK_D, BLOCK_N, HAS_BIAS, HAS_WINDOW, HAS_CAP, True,
            )  # fmt: skip
    for position in tl.range(whole_start, whole_end, BLOCK_N, num_stages=STAGES):
        top, total, mixed = _attend_tile(
            query, top, total, mixed, boost, place, position, length,
            key_ptr, value_ptr, tables_ptr, mask_ptr, score_scale, cap, window,
            stride_kn, stride_kd, stride_kb, stride_vn, stride_vb,
            WIDTH, BLOCK, BLOCK_D, BLOCK_N, HAS_BIAS, HAS_WINDOW, HAS_CAP, False,
        )  # fmt: skip
    for position in tl.range(whole_end, latest + 1, BLOCK_N, num_stages=STAGES):
        top, total, mixed = _attend_tile(
            query, top, total, mixed, boost, place, position, length,
            key_ptr, value_ptr, tables_ptr, mask_ptr, score_scale, cap, window,
            stride_kn, stride_kd, stride_kb, stride_vn, stride_vb,
            WIDTH, BLOCK, BLOCK_D, BLOCK_N, HAS_BIAS, HAS_WINDOW, HAS_CAP, True,
        )  # fmt: skip

    mixed *= (value_scale / tl.where(total > 0.0, total, 1.0))[:, None]
    target = output_ptr + (row * HEADS + head)[:, None] * WIDTH + offs_d[None, :]
    tl.store(target, mixed.to(output_ptr.dtype.element_ty), mask=stored)


def paged_prefill_triton(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    cu_query: Tensor,
    lengths: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    plan: PrefillPlan | None = None,
    instruction: InstructionBias | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    *,
    fixed: bool = False,
) -> Tensor:
    """See :func:`ift_kernels.paged_prefill.paged_prefill`. fixed: a row's result has the same bits in any batch.

    Tiles of keys begin at multiples of their size, wherever a chunk begins, so it takes only their size to be the same
    with and without a bias, and products that are not fused into sums: masked tiles and whole ones scale their scores
    at different places, which is the same only where each operation rounds.
    """
    tokens, heads, width = query.shape
    kv_heads, block = key_cache.shape[1], key_cache.shape[3]
    output = torch.empty((tokens, heads, width), dtype=query.dtype, device=query.device)
    if plan is None:
        plan = prefill_plan(cu_query.diff().tolist(), heads, kv_heads, width, query.device)
    if not plan.tiles.shape[0]:
        return output
    query = query if query.stride(2) == 1 else query.contiguous()
    padded, bias = max(16, triton.next_power_of_2(width)), instruction
    choice = prefill_choice(padded, query.element_size(), fixed or bias is not None, properties(query).capability)
    score_scale = 2 * _LOG2E * scale * key_scale / softcap if softcap else scale * key_scale * _LOG2E
    block_m = min(choice.block_m, plan.block_m)
    _paged_prefill_kernel[(plan.tiles.shape[0], kv_heads, plan.block_m // block_m)](
        query, key_cache, value_cache, block_tables, plan.tiles, cu_query, lengths,
        None if bias is None else bias.mask, None if bias is None else bias.bias,
        None if bias is None else bias.adapter, None if bias is None else bias.strength,
        output, score_scale, softcap * _LOG2E, value_scale, window,
        query.stride(0), query.stride(1), *key_cache.stride(), *value_cache.stride()[:3],
        block_tables.stride(0), 0 if bias is None else bias.mask.stride(0),
        HEADS=heads, GROUP=heads // kv_heads, WIDTH=width, BLOCK=block,
        PLANNED=plan.block_m, BLOCK_M=block_m, BLOCK_D=padded, BLOCK_N=choice.block_n,
        HAS_BIAS=bias is not None, HAS_WINDOW=window > 0, HAS_CAP=softcap > 0,
        STAGES=choice.stages, num_warps=choice.warps, enable_fp_fusion=not fixed,
    )  # fmt: skip
    return output
