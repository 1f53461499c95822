"""Definition of the cache write and of the rotation before it."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.instruction import mark_instruction

_LARGEST = torch.finfo(torch.float8_e4m3fn).max


def _put(cache: Tensor, places: tuple[Tensor, Tensor], states: Tensor, scale: float) -> None:
    """``cache[blocks, offsets] = states / scale``; float8 saturates."""
    if scale != 1.0:
        states = states.float() / scale
    if cache.dtype == torch.float8_e4m3fn:
        # Float8 has no indexed writes of its own.
        states = states.float().clamp(-_LARGEST, _LARGEST).to(cache.dtype).view(torch.uint8)
        cache = cache.view(torch.uint8)
    cache[places] = states.to(cache.dtype)


def write_kv_reference(
    key: Tensor,
    value: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> None:
    """See :func:`ift_kernels.write_kv.write_kv`."""
    if slots.numel() and int(slots.min()) < 0:
        kept = slots >= 0
        key, value, slots = key[kept], value[kept], slots[kept]
    block_size = key_cache.shape[3]
    places = (torch.div(slots, block_size, rounding_mode="floor").long(), (slots % block_size).long())
    _put(key_cache.permute(0, 3, 1, 2), places, key, key_scale)
    _put(value_cache.permute(0, 2, 1, 3)[..., : value.shape[-1]], places, value, value_scale)


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    width = cosine.shape[-1]
    turned, rest = states[..., :width].float(), states[..., width:]
    first, second = turned.chunk(2, dim=-1)
    crossed = torch.cat((-second, first), dim=-1)
    mixed = turned * cosine.float()[:, None] + crossed * sine.float()[:, None]
    return torch.cat((mixed.to(states.dtype), rest), dim=-1)


def _normalise(states: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    if weight is None:
        return states
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(states.dtype)


def rotate_and_write_kv_reference(
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
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    marks: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """See :func:`ift_kernels.write_kv.rotate_and_write_kv`; ``marks`` is (segments, mask, sequence)."""
    tokens = states.shape[0]
    split = states.view(tokens, heads + 2 * kv_heads, -1)
    cos, sin = cosine[positions.long()], sine[positions.long()]
    query, key = split[:, :heads], split[:, heads : heads + kv_heads]
    query.copy_(_rotate(_normalise(query, query_norm, epsilon), cos, sin))
    key.copy_(_rotate(_normalise(key, key_norm, epsilon), cos, sin))
    write_kv_reference(key, split[:, heads + kv_heads :], slots, key_cache, value_cache, key_scale, value_scale)
    if marks is not None:
        segments, mask, sequence = marks
        mark_instruction(mask, sequence, positions, segments, slots)
