"""The memory of keys and values: blocks of all layers, and the copies that forks need."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch

from ift_serve.modeling.decoder.cache_scales import CacheScale
from ift_serve.modeling.decoder.flat_batch import LayerCache, LayerGeometry

_LANES = 16


def _padded(width: int, device: str) -> int:
    """Width of a stored value: whole vectors on the CPU."""
    return -(-width // _LANES) * _LANES if device == "cpu" else width


def bytes_per_block(geometry: list[LayerGeometry], block_size: int, dtype: torch.dtype, device: str = "cpu") -> int:
    """Memory of one block over all layers, in bytes."""
    return sum(g.kv_heads * block_size * (g.width + _padded(g.width, device)) * dtype.itemsize for g in geometry)


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros on the CPU whose pages become resident only when they are written.

    ``torch.zeros`` writes them all. A mapping of its own goes back to the system with the tensor.
    """
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(1, count * dtype.itemsize), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)


class KVCache:
    """``blocks`` blocks of ``block_size`` tokens for every layer, zeroed so that unwritten slots stay finite.

    On the CPU the keys of a block lie transposed, so that 16 of them fill a vector, and a block takes memory from the
    system once it is first written; on a GPU a token's key is contiguous. Either way the shape of keys is
    ``[N, H_kv, D, B]``. ``dtype`` may be float8_e4m3fn on a GPU.
    """

    def __init__(
        self,
        geometry: list[LayerGeometry],
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: str = "cpu",
        scales: Sequence[CacheScale] | None = None,
    ) -> None:
        """scales: by layer, of a float8 cache."""
        self.blocks = blocks
        self.block_size = block_size
        of_layers = scales or [CacheScale()] * len(geometry)
        self.layers = [
            self._layer(layer, scale, dtype, device) for layer, scale in zip(geometry, of_layers, strict=True)
        ]

    def _layer(self, layer: LayerGeometry, scale: CacheScale, dtype: torch.dtype, device: str) -> LayerCache:
        outer = (self.blocks, layer.kv_heads)
        padded = _padded(layer.width, device)
        if device == "cpu":
            keys = untouched_zeros((*outer, layer.width, self.block_size), dtype)
            values = untouched_zeros((*outer, self.block_size, padded), dtype)
            return LayerCache(keys, values, scale.key, scale.value)
        keys = torch.zeros(*outer, self.block_size, layer.width, dtype=dtype, device=device).transpose(2, 3)
        values = torch.zeros(*outer, self.block_size, padded, dtype=dtype, device=device)
        return LayerCache(keys, values, scale.key, scale.value)

    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy whole blocks, ``(source, destination)``, in every layer."""
        device = self.layers[0].keys.device
        source = torch.tensor([pair[0] for pair in copies], device=device)
        destination = torch.tensor([pair[1] for pair in copies], device=device)
        for layer in self.layers:
            for memory in (_bytes(layer.keys), _bytes(layer.values)):
                memory[destination] = memory[source]


def _bytes(memory: torch.Tensor) -> torch.Tensor:
    """Float8 tensors as bytes, which every device can index."""
    return memory.view(torch.uint8) if memory.dtype.itemsize == 1 else memory
