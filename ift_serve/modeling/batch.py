"""The description of one forward pass that every attention layer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ift_kernels.paged_decode import paged_decode
from ift_kernels.write_kv import write_kv


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """Shapes of one attention layer: heads, key-value heads, head width, sliding window (0: none), soft-cap."""

    heads: int
    kv_heads: int
    width: int
    window: int
    softcap: float


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys ``[N, H_kv, D, B]`` and values ``[N, H_kv, B, D']`` of one layer (layout: ``ift_kernels.paged_decode``)."""

    keys: Tensor
    values: Tensor


class AttentionBatch(Protocol):
    """What the routed attention calls; passed through the model as the keyword ``batch``."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """query ``[T, H, D]``, key and value ``[T, H_kv, D]`` -> ``[T, H, D]``, all of the flat batch's T tokens."""


@dataclass(slots=True)
class FlatBatch:
    """T tokens of S sequences side by side, any mix of prompt chunks and single decode tokens.

    ``positions``, ``slots`` (cache slot each token is written to), ``sequence`` (row of ``block_tables``) and
    ``lengths`` (tokens a row may see: its position + 1) are ``[T]`` int32; ``block_tables`` is ``[S, M]`` int32;
    ``segments`` is ``[T]`` uint8 (design: 0 template, 1 instruction, 2 context, 3 response). ``tiles`` groups
    neighbouring rows for the attention kernel.
    """

    input_ids: Tensor
    positions: Tensor
    slots: Tensor
    sequence: Tensor
    lengths: Tensor
    longest: int
    block_tables: Tensor
    segments: Tensor
    layers: list[LayerCache]
    tiles: Tensor | None = None

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """Write keys and values into the cache, then let every token see its sequence up to itself."""
        cache = self.layers[module.layer_idx]  # type: ignore[index]
        write_kv(key, value, self.slots, cache.keys, cache.values)
        return self.attend_cached(cache, query, scale, window, softcap)

    def attend_cached(self, cache: LayerCache, query: Tensor, scale: float, window: int, softcap: float) -> Tensor:
        """Attention over keys and values that are in the cache already."""
        return paged_decode(
            query, cache.keys, cache.values, self.block_tables, self.sequence, self.lengths, self.longest,
            scale, window, softcap, self.tiles,
        )  # fmt: skip


class GeometryProbe:
    """Records what each attention layer is called with, to size the cache and to prove that all are routed."""

    def __init__(self) -> None:
        self.layers: dict[int, LayerGeometry] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """Note the shapes and run plain causal attention, so that later layers see finite numbers."""
        tokens, heads, width = query.shape
        kv_heads = key.shape[1]
        index = int(module.layer_idx)  # type: ignore[arg-type]
        self.layers[index] = LayerGeometry(heads, kv_heads, width, window, softcap)
        keys = key.float().repeat_interleave(heads // kv_heads, dim=1)
        values = value.float().repeat_interleave(heads // kv_heads, dim=1)
        scores = torch.einsum("qhd,khd->hqk", query.float(), keys) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        rows = torch.arange(tokens, device=query.device)
        hidden = rows[None, :] > rows[:, None]
        if window:
            hidden |= rows[None, :] <= rows[:, None] - window
        weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
        return torch.einsum("hqk,khd->qhd", weights, values).to(query.dtype)
