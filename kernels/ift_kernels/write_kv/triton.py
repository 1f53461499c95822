"""Rotation and cache write in Triton: one program a token and a few of its heads."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS = 1024
"""Elements of a program of 4 warps: one 16-byte load a thread."""


@triton.jit
def _stored(x, scale, kind: tl.constexpr, SCALED: tl.constexpr):
    """``x / scale`` as the cache holds it: float8_e4m3fn saturates at its largest number."""
    if SCALED:
        x = tl.div_rn(x.to(tl.float32), scale)
    if kind == tl.float8e4nv:
        x = tl.minimum(tl.maximum(x.to(tl.float32), -448.0), 448.0)
    return x.to(kind)


@triton.jit(do_not_specialize_on_alignment=["slots_ptr"])
def _write_kv_kernel(
    key_in_ptr, value_in_ptr, slots_ptr, key_ptr, value_ptr, key_scale, value_scale,
    stride_key, stride_key_head, stride_key_d, stride_value, stride_value_head, stride_value_d,
    stride_kn, stride_kh, stride_kd, stride_kb, stride_vn, stride_vh, stride_vb,
    KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot < 0:
        return
    block, offset = (slot // BLOCK).to(tl.int64), slot % BLOCK
    head = (tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    ok = (head < KV_HEADS) & (d < WIDTH)
    key = tl.load(key_in_ptr + token * stride_key + head * stride_key_head + d * stride_key_d, mask=ok)
    value = tl.load(value_in_ptr + token * stride_value + head * stride_value_head + d * stride_value_d, mask=ok)
    key_ptr += block * stride_kn + head * stride_kh + d * stride_kd + offset * stride_kb
    value_ptr += block * stride_vn + head * stride_vh + offset * stride_vb + d
    tl.store(key_ptr, _stored(key, key_scale, key_ptr.dtype.element_ty, SCALED), mask=ok)
    tl.store(value_ptr, _stored(value, value_scale, value_ptr.dtype.element_ty, SCALED), mask=ok)


@triton.jit
def _normalised(x, inverse, weight, kind: tl.constexpr):
    """Rounded to the dtype before and after the weight, as the modules of transformers do."""
    x = (x * inverse[:, None]).to(kind).to(tl.float32)
    return (x * weight.to(tl.float32)).to(kind).to(tl.float32)


@triton.jit
def _norm_weight(query_norm_ptr, key_norm_ptr, is_query, d, ok, HAS_QUERY: tl.constexpr, HAS_KEY: tl.constexpr):
    """``[heads, d]`` weights: those of the queries or of the keys."""
    if HAS_QUERY and HAS_KEY:
        of_query = tl.load(query_norm_ptr + d, mask=ok, other=0.0)
        of_key = tl.load(key_norm_ptr + d, mask=ok, other=0.0)
        weight = tl.where(is_query[:, None], of_query[None, :], of_key[None, :])
    elif HAS_QUERY:
        weight = tl.load(query_norm_ptr + d, mask=ok, other=0.0)[None, :]
    else:
        weight = tl.load(key_norm_ptr + d, mask=ok, other=0.0)[None, :]
    return weight


@triton.jit
def _write_part(
    x, d, ok, head, states_ptr, key_ptr, value_ptr, key_scale, value_scale, stride_kh, stride_kd, stride_vh,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Columns ``d`` of every head, each to where it belongs."""
    row, d = head[:, None], d[None, :]
    ok = ok[None, :]
    first_value: tl.constexpr = HEADS + KV_HEADS
    tl.store(states_ptr + row * WIDTH + d, x.to(states_ptr.dtype.element_ty), mask=ok & (row < first_value))
    # A key is rounded to the dtype of the states before it is scaled, as if it had been read back.
    x = x.to(states_ptr.dtype.element_ty)
    key = _stored(x, key_scale, key_ptr.dtype.element_ty, SCALED)
    is_key = (row >= HEADS) & (row < first_value)
    tl.store(key_ptr + (row - HEADS) * stride_kh + d * stride_kd, key, mask=ok & is_key)
    value = _stored(x, value_scale, value_ptr.dtype.element_ty, SCALED)
    is_value = (row >= first_value) & (row < first_value + KV_HEADS)
    tl.store(value_ptr + (row - first_value) * stride_vh + d, value, mask=ok & is_value)


@triton.jit(
    do_not_specialize=["stride_mask"],
    do_not_specialize_on_alignment=["positions_ptr", "slots_ptr", "segments_ptr", "mask_ptr", "sequence_ptr"],
)
def _rotate_and_write_kv_kernel(
    states_ptr, cosine_ptr, sine_ptr, positions_ptr, slots_ptr, key_ptr, value_ptr, query_norm_ptr, key_norm_ptr,
    segments_ptr, mask_ptr, sequence_ptr, epsilon, key_scale, value_scale,
    stride_kn, stride_kh, stride_kd, stride_kb, stride_vn, stride_vh, stride_vb, stride_mask,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, ROTARY: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_HALF: tl.constexpr, BLOCK_REST: tl.constexpr,
    HAS_QUERY: tl.constexpr, HAS_KEY: tl.constexpr, MARKS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = ROTARY // 2
    kind: tl.constexpr = states_ptr.dtype.element_ty
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot < 0:
        return
    position = tl.load(positions_ptr + token).to(tl.int64)
    if MARKS and tl.program_id(1) == 0:
        row = tl.load(sequence_ptr + token).to(tl.int64)
        tl.store(mask_ptr + row * stride_mask + position, (tl.load(segments_ptr + token) == 1).to(tl.uint8))
    block, offset = (slot // BLOCK).to(tl.int64), slot % BLOCK
    states_ptr += token * ((HEADS + 2 * KV_HEADS) * WIDTH)
    key_ptr += block * stride_kn + offset * stride_kb
    value_ptr += block * stride_vn + offset * stride_vb

    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    low = tl.arange(0, BLOCK_HALF)
    low_ok = low < half
    rest_d = ROTARY + tl.arange(0, BLOCK_REST)
    rest_ok = rest_d < WIDTH
    head_ok = (head < HEADS + 2 * KV_HEADS)[:, None]
    own = states_ptr + head[:, None] * WIDTH
    a = tl.load(own + low[None, :], mask=head_ok & low_ok[None, :], other=0.0).to(tl.float32)
    b = tl.load(own + half + low[None, :], mask=head_ok & low_ok[None, :], other=0.0).to(tl.float32)
    if ROTARY < WIDTH:
        rest = tl.load(own + rest_d[None, :], mask=head_ok & rest_ok[None, :], other=0.0).to(tl.float32)
    is_query = head < HEADS
    is_key = (head >= HEADS) & (head < HEADS + KV_HEADS)

    if HAS_QUERY or HAS_KEY:
        squares = tl.sum(a * a, 1) + tl.sum(b * b, 1)
        if ROTARY < WIDTH:
            squares += tl.sum(rest * rest, 1)
        inverse = 1.0 / tl.sqrt_rn(squares / WIDTH + epsilon)
        normed = is_query | is_key if HAS_QUERY and HAS_KEY else (is_query if HAS_QUERY else is_key)
        weight = _norm_weight(query_norm_ptr, key_norm_ptr, is_query, low, low_ok, HAS_QUERY, HAS_KEY)
        a = tl.where(normed[:, None], _normalised(a, inverse, weight, kind), a)
        weight = _norm_weight(query_norm_ptr, key_norm_ptr, is_query, half + low, low_ok, HAS_QUERY, HAS_KEY)
        b = tl.where(normed[:, None], _normalised(b, inverse, weight, kind), b)
        if ROTARY < WIDTH:
            weight = _norm_weight(query_norm_ptr, key_norm_ptr, is_query, rest_d, rest_ok, HAS_QUERY, HAS_KEY)
            rest = tl.where(normed[:, None], _normalised(rest, inverse, weight, kind), rest)

    angle = position * ROTARY + low
    cosine_a = tl.load(cosine_ptr + angle, mask=low_ok, other=0.0)[None, :]
    cosine_b = tl.load(cosine_ptr + half + angle, mask=low_ok, other=0.0)[None, :]
    sine_a = tl.load(sine_ptr + angle, mask=low_ok, other=0.0)[None, :]
    sine_b = tl.load(sine_ptr + half + angle, mask=low_ok, other=0.0)[None, :]
    turned = (is_query | is_key)[:, None]
    new_a = tl.where(turned, a * cosine_a - b * sine_a, a)
    new_b = tl.where(turned, b * cosine_b + a * sine_b, b)
    _write_part(
        new_a, low, low_ok, head, states_ptr, key_ptr, value_ptr, key_scale, value_scale,
        stride_kh, stride_kd, stride_vh, HEADS, KV_HEADS, WIDTH, SCALED,
    )  # fmt: skip
    _write_part(
        new_b, half + low, low_ok, head, states_ptr, key_ptr, value_ptr, key_scale, value_scale,
        stride_kh, stride_kd, stride_vh, HEADS, KV_HEADS, WIDTH, SCALED,
    )  # fmt: skip
    if ROTARY < WIDTH:
        _write_part(
            rest, rest_d, rest_ok, head, states_ptr, key_ptr, value_ptr, key_scale, value_scale,
            stride_kh, stride_kd, stride_vh, HEADS, KV_HEADS, WIDTH, SCALED,
        )  # fmt: skip


def _heads_at_once(heads: int, padded_width: int) -> int:
    return int(min(triton.next_power_of_2(heads), max(1, _ELEMENTS // padded_width)))


def write_kv_triton(
    key: Tensor,
    value: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scale: float,
    value_scale: float,
) -> None:
    """See :func:`ift_kernels.write_kv.write_kv`."""
    tokens, kv_heads, width = key.shape
    if not tokens:
        return
    padded = triton.next_power_of_2(width)
    block_h = _heads_at_once(kv_heads, padded)
    _write_kv_kernel[(tokens, triton.cdiv(kv_heads, block_h))](
        key, value, slots, key_cache, value_cache, key_scale, value_scale,
        *key.stride(), *value.stride(), *key_cache.stride(), *value_cache.stride()[:3],
        KV_HEADS=kv_heads, WIDTH=width, BLOCK=key_cache.shape[3], BLOCK_H=block_h, BLOCK_D=padded,
        SCALED=key_scale != 1.0 or value_scale != 1.0, num_warps=4,
    )  # fmt: skip


def rotate_and_write_kv_triton(
    states: Tensor,
    heads: int,
    kv_heads: int,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    query_norm: Tensor | None,
    key_norm: Tensor | None,
    epsilon: float,
    key_scale: float,
    value_scale: float,
    marks: tuple[Tensor, Tensor, Tensor] | None,
) -> None:
    """See :func:`ift_kernels.write_kv.rotate_and_write_kv`; ``marks`` is (segments, mask, sequence)."""
    if not states.shape[0]:
        return
    width, rotary = key_cache.shape[2], cosine.shape[1]
    all_heads = heads + 2 * kv_heads
    block_h = _heads_at_once(all_heads, triton.next_power_of_2(width))
    segments, mask, sequence = (None, None, None) if marks is None else marks
    _rotate_and_write_kv_kernel[(states.shape[0], triton.cdiv(all_heads, block_h))](
        states, cosine, sine, positions, slots, key_cache, value_cache, query_norm, key_norm,
        segments, mask, sequence, epsilon, key_scale, value_scale,
        *key_cache.stride(), *value_cache.stride()[:3], 0 if mask is None else mask.stride(0),
        HEADS=heads, KV_HEADS=kv_heads, WIDTH=width, ROTARY=rotary, BLOCK=key_cache.shape[3],
        BLOCK_H=block_h, BLOCK_HALF=triton.next_power_of_2(rotary // 2),
        BLOCK_REST=triton.next_power_of_2(max(1, width - rotary)),
        HAS_QUERY=query_norm is not None, HAS_KEY=key_norm is not None, MARKS=marks is not None,
        SCALED=key_scale != 1.0 or value_scale != 1.0, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
