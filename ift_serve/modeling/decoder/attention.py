"""The route from transformers' models into this project's attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AttentionInterface

from ift_serve.modeling.decoder.flat_batch import AttentionBatch, NotRoutedError

ATTENTION_NAME = "ift"


def _routed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: AttentionBatch | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' calling convention: ``[B, H, L, D]`` in, ``[B, L, H, D]`` out; the batch sees ``T = B L`` tokens.

    The batch arrives as a keyword through the model, never from ambient state. Raises NotRoutedError for what the
    batch does not compute.
    """
    if batch is None:
        raise NotRoutedError("it does not pass keywords on to its attention")
    if s_aux is not None or position_bias is not None or is_causal is False:
        raise NotRoutedError(_named(s_aux, position_bias))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    narrower = key.shape[-1] - value.shape[-1]
    if narrower > 0:  # the cache takes values as wide as keys
        value = pad(value, (0, narrower))
    q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    window: int = getattr(module, "mask_window", 0) if sliding_window is None else sliding_window
    output = batch.attend(module, q, k, v, scale, window, softcap or 0.0)
    if narrower > 0:
        output = output[..., :-narrower].contiguous()
    return output.view(query.shape[0], query.shape[2], *output.shape[1:]), None


def _named(sinks: Tensor | None, position_bias: Tensor | None) -> str:
    if sinks is not None:
        return "its attention has sinks, which take part of each row's weight"
    return "its attention adds a bias by position" if position_bias is not None else "its attention is not causal"


def register_attention() -> None:
    """Make ``attn_implementation="ift"`` known. No mask function is registered, so none is ever built."""
    AttentionInterface.register(ATTENTION_NAME, _routed_attention)
