"""The route from transformers' models into this project's attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from ift_serve.modeling.batch import AttentionBatch

ATTENTION_NAME = "ift"


def _routed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: AttentionBatch,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' calling convention: ``[B, H, L, D]`` in, ``[B, L, H, D]`` out; the batch sees ``T = B L`` tokens.

    The batch arrives as a keyword through the model, never from ambient state.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    output = batch.attend(module, q, k, v, scale, sliding_window or 0, softcap or 0.0)
    return output.view(query.shape[0], query.shape[2], *output.shape[1:]), None


def register_attention() -> None:
    """Make ``attn_implementation="ift"`` known. No mask function is registered, so none is ever built."""
    AttentionInterface.register(ATTENTION_NAME, _routed_attention)
