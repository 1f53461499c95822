"""Definition of the cache write and of the rotation before it."""

from __future__ import annotations

import torch
from torch import Tensor


def write_kv_reference(key: Tensor, value: Tensor, slots: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    """See :func:`ift_kernels.write_kv.write_kv`."""
    block_size = key_cache.shape[3]
    blocks = torch.div(slots, block_size, rounding_mode="floor").long()
    offsets = (slots % block_size).long()
    key_cache.permute(0, 3, 1, 2)[blocks, offsets] = key
    value_cache.permute(0, 2, 1, 3)[..., : value.shape[-1]][blocks, offsets] = value


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
) -> None:
    """See :func:`ift_kernels.write_kv.rotate_and_write_kv`."""
    tokens = states.shape[0]
    split = states.view(tokens, heads + 2 * kv_heads, -1)
    cos, sin = cosine[positions.long()], sine[positions.long()]
    query, key = split[:, :heads], split[:, heads : heads + kv_heads]
    query.copy_(_rotate(_normalise(query, query_norm, epsilon), cos, sin))
    key.copy_(_rotate(_normalise(key, key_norm, epsilon), cos, sin))
    write_kv_reference(key, split[:, heads + kv_heads :], slots, key_cache, value_cache)
