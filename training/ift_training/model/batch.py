"""A batch in training, as the routed attention sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from ift_serve.modeling.components.adaptation import SoloAdaptation
from ift_serve.modeling.decoder.flat_batch import Adaptation

_WIDTH_STEP = 8


@dataclass(slots=True)
class TrainingBatch:
    """``B`` rows of ``L`` tokens, each row one document or several packed ones.

    visible: ``[B, 1, L, L]`` bool, causal and within documents. The attention bias enters as one more column of
    queries (``strength * bias / scale``) and keys (1 at instruction tokens), so that any attention kernel computes
    it, with gradients.
    """

    visible: Tensor
    adaptation: Adaptation | None = None

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """query ``[T, H, D]``, key and value ``[T, H_kv, D]`` -> ``[T, H, D]`` with ``T = B L``."""
        rows, length = self.visible.shape[0], self.visible.shape[-1]
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        visible = self.visible
        if window:
            places = torch.arange(length, device=query.device)
            visible = visible & (places[None, :] > places[:, None] - window)
        bias = self._bias(layer)
        if softcap:
            output = _capped(query, key, value, visible, bias, scale, softcap, rows)
        else:
            output = _plain(query, key, value, visible, bias, scale, rows)
        return output if self.adaptation is None else self.adaptation.gain(layer, output)

    def _bias(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """``strength * bias`` of each query ``[T, H]`` and the mark of each key ``[T]``."""
        adaptation = self.adaptation
        if not isinstance(adaptation, SoloAdaptation) or adaptation.components.attention_bias is None:
            return None
        tokens = adaptation.tokens
        strength = adaptation.components.strength(tokens.instruction, tokens.sequences)[tokens.sequence]
        return strength[:, None] * adaptation.components.head_bias()[layer][None], tokens.is_instruction


def _rows(states: Tensor, rows: int) -> Tensor:
    """``[T, H, D] -> [B, H, L, D]``."""
    return states.view(rows, -1, *states.shape[1:]).transpose(1, 2)


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    bias: tuple[Tensor, Tensor] | None,
    scale: float,
    rows: int,
) -> Tensor:
    width = query.shape[-1]
    if bias is not None:
        added, marks = bias
        query = torch.cat((query, (added / scale)[..., None].to(query.dtype)), dim=-1)
        column = marks[:, None, None].expand(-1, key.shape[1], 1).to(key.dtype)
        key = torch.cat((key, column), dim=-1)
        extra = -query.shape[-1] % _WIDTH_STEP
        query, key = pad(query, (0, extra)), pad(key, (0, extra))
    value = pad(value, (0, query.shape[-1] - width))
    mixed = scaled_dot_product_attention(
        _rows(query, rows), _rows(key, rows), _rows(value, rows), attn_mask=visible, scale=scale, enable_gqa=True
    )
    return mixed[..., :width].transpose(1, 2).flatten(0, 1)


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    bias: tuple[Tensor, Tensor] | None,
    scale: float,
    softcap: float,
    rows: int,
) -> Tensor:
    """Soft-capped scores, with the bias after the cap, as :class:`ift_kernels.instruction.InstructionBias` says."""
    group = query.shape[1] // key.shape[1]
    k, v = _rows(key, rows).repeat_interleave(group, 1), _rows(value, rows).repeat_interleave(group, 1)
    scores = (_rows(query, rows) @ k.transpose(2, 3)).float() * scale
    scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        added, marks = bias
        scores = scores + added.view(rows, -1, added.shape[1]).transpose(1, 2)[..., None] * marks.view(rows, 1, 1, -1)
    weights = torch.softmax(scores.masked_fill(~visible, torch.finfo(scores.dtype).min), dim=-1).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(0, 1)


def visible_pairs(sequence: Tensor) -> Tensor:
    """``[B, 1, L, L]`` bool from the document of each token ``[B, L]``: itself and earlier ones of its document."""
    length = sequence.shape[1]
    same = sequence[:, :, None] == sequence[:, None, :]
    return (same & torch.ones(length, length, dtype=torch.bool, device=sequence.device).tril())[:, None]
