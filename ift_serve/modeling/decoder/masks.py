"""The attention masks that a model makes for itself, which flat batches do without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

_NAME = "ift-masks"
_WINDOW = "mask_window"


def mask_windows(model: Any, prompt: list[int]) -> list[int] | None:
    """The sliding window of each layer's mask, 0 where it is only causal; None where a mask is of another kind."""
    masks: dict[int, Tensor | None] = {}

    def note(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        masks[int(module.layer_idx)] = attention_mask
        return value.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    AttentionInterface.register(_NAME, note)
    AttentionMaskInterface.register(_NAME, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        model(input_ids=torch.tensor([prompt], device=next(model.parameters()).device), use_cache=False)
    except Exception:  # whatever a class does with attention of another kind
        return None
    finally:
        model.set_attn_implementation(before)
    found = [_window_of(masks[layer], len(prompt)) for layer in sorted(masks)]
    return [w for w in found if w is not None] if None not in found else None


def _window_of(mask: Tensor | None, length: int) -> int | None:
    """The window of a mask ``[1, 1, L, L]`` that is added to the scores, or whose True entries are visible."""
    if mask is None or mask.shape != (1, 1, length, length):
        return None
    visible = (mask if mask.dtype == torch.bool else mask == 0)[0, 0].cpu()
    window = int(visible[-1].sum())
    rows = torch.arange(length)
    distance = rows[:, None] - rows[None, :]
    expected = (distance >= 0) & (distance < window)
    if not torch.equal(visible, expected):
        return None
    return 0 if window == length else window


def set_windows(model: nn.Module, windows: list[int]) -> None:
    """Give the routed attention of each layer its window, where the model has it only in its masks."""
    for module in model.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and windows[layer]:
            setattr(module, _WINDOW, windows[layer])
