"""Scales of a float8 cache: one for the keys and one for the values of each layer, found before the model serves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ift_serve.modeling.decoder.flat_batch import GeometryProbe
from ift_serve.modeling.decoder.model_loader import LoadedModel

_TOKENS = 128
_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_ROOM = 4.0
"""How much larger than any seen here a key or value may be before it saturates. e4m3's normal numbers span 2^15, of
which this and what it leaves above the smallest ones is little."""


@dataclass(frozen=True, slots=True)
class CacheScale:
    """What the entries of one layer's cache are multiplied with."""

    key: float = 1.0
    value: float = 1.0


class _SizeProbe(GeometryProbe):
    """Notes the largest key and value of each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[float, float]] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """See :class:`GeometryProbe`."""
        self.sizes[int(module.layer_idx)] = (float(key.abs().max()), float(value.abs().max()))  # type: ignore[arg-type]
        return super().attend(module, query, key, value, scale, window, softcap)


@torch.inference_mode()
def cache_scales(loaded: LoadedModel) -> list[CacheScale]:
    """For every layer, from the keys and values of random tokens; before a decoder takes the model apart.

    One a layer, since the kernels fold it into the softmax's scale and into the output, outside of their loops; fixed,
    so that an entry depends on its token alone: neither on the batch nor on who else shares the prefix. Powers of two,
    so that nothing is rounded but by the format.
    """
    count = min(_TOKENS, loaded.context_length)
    vocabulary = int(loaded.config.vocab_size)
    device = next(loaded.model.parameters()).device
    ids = torch.randint(vocabulary, (1, count), generator=torch.Generator().manual_seed(7)).to(device)
    probe = _SizeProbe()
    positions = torch.arange(count, device=device)[None]
    loaded.model(input_ids=ids, position_ids=positions, use_cache=False, batch=probe)
    return [CacheScale(*map(_scale, probe.sizes[layer])) for layer in range(len(loaded.geometry))]


def _scale(largest: float) -> float:
    return 2.0 ** math.ceil(math.log2(largest * _ROOM / _LARGEST)) if largest > 0 else 1.0
