"""The memory of keys and values: blocks of all layers, and the copies that forks need."""

from __future__ import annotations

import torch

from ift_serve.modeling.batch import LayerCache, LayerGeometry

_LANES = 16


def bytes_per_block(geometry: list[LayerGeometry], block_size: int, dtype: torch.dtype) -> int:
    """Memory of one block over all layers, in bytes."""
    size = torch.empty((), dtype=dtype).element_size()
    return sum(layer.kv_heads * block_size * (layer.width + _padded(layer.width)) * size for layer in geometry)


def _padded(width: int) -> int:
    return -(-width // _LANES) * _LANES


class KVCache:
    """``blocks`` blocks of ``block_size`` tokens for every layer, zeroed so that unwritten slots stay finite."""

    def __init__(self, geometry: list[LayerGeometry], blocks: int, block_size: int, dtype: torch.dtype) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self.layers = [
            LayerCache(
                keys=torch.zeros(blocks, layer.kv_heads, layer.width, block_size, dtype=dtype),
                values=torch.zeros(blocks, layer.kv_heads, block_size, _padded(layer.width), dtype=dtype),
            )
            for layer in geometry
        ]

    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy whole blocks, ``(source, destination)``, in every layer."""
        source = torch.tensor([pair[0] for pair in copies])
        destination = torch.tensor([pair[1] for pair in copies])
        for layer in self.layers:
            layer.keys[destination] = layer.keys[source]
            layer.values[destination] = layer.values[source]
