"""Checks of rotary embeddings that depend on the rest of the batch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

_POSITIONS = 8


def depends_on_longest(model: nn.Module, config: Any, context_length: int) -> bool:
    """Whether the angles of the first positions change when a batch also has the last of ``context_length``.

    In a flat batch one caller's length would then change another's answer. Embeddings that take other arguments than
    transformers' usual ones are left to the comparison of logits.
    """
    kinds: list[tuple[Any, ...]] = [(), *((kind,) for kind in sorted(set(getattr(config, "layer_types", None) or ())))]
    device = next(model.parameters()).device
    short = torch.arange(min(_POSITIONS, context_length), device=device)[None]
    long = torch.cat((short, short.new_tensor([[context_length - 1]])), dim=1)
    for module in model.modules():
        if not type(module).__name__.endswith("RotaryEmbedding"):
            continue
        for kind in kinds:
            alone, together = _angles(module, short, kind), _angles(module, long, kind)
            if alone is not None and together is not None and not torch.equal(alone, together[:, : alone.shape[1]]):
                return True
    return False


def _angles(module: nn.Module, positions: Tensor, kind: tuple[Any, ...]) -> Tensor | None:
    """Cosines by position, by a copy: some embeddings keep what they computed last."""
    try:
        found = copy.deepcopy(module)(torch.zeros(1, device=positions.device), positions, *kind)
    except Exception:  # another signature
        return None
    first = found[0] if isinstance(found, tuple) else found
    if isinstance(first, Tensor) and first.ndim == 3 and first.shape[1] == positions.shape[1]:
        return torch.view_as_real(first).flatten(2) if first.is_complex() else first
    return None
