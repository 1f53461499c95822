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
    """transformers' calling convention: ``[1, H, T, D]`` in, ``[1, T, H, D]`` out.

    The batch arrives as a keyword through the model, never from ambient state.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = batch.attend(
        module,
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scale,
        sliding_window or 0,
        softcap or 0.0,
    )
    return output[None], None


def register_attention() -> None:
    """Make ``attn_implementation="ift"`` known. No mask function is registered, so none is ever built."""
    AttentionInterface.register(ATTENTION_NAME, _routed_attention)
