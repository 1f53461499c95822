"""Llama-like decoders in nine calls a layer, computing what transformers' modules compute.

At small batches a transformers layer spends most of its time in Python and in some forty small operations. Here
queries, keys and values come from one product, gate and up from another, and normalisation, rotation, cache
write, attention and gating are one kernel each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from ift_kernels.residual_rms_norm import residual_rms_norm
from ift_kernels.silu_mul import silu_mul
from ift_kernels.write_kv import rotate_and_write_kv
from ift_serve.modeling.batch import FlatBatch
from ift_serve.modeling.linear import PackedLinear, can_pack
from ift_serve.modeling.loading import LoadedModel

_LANES = 16
_LAYER_CLASSES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")


@dataclass(slots=True)
class _Layer:
    """The packed weights of one decoder layer."""

    input_norm: Tensor
    qkv: PackedLinear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: PackedLinear
    mlp_norm: Tensor
    gate_up: PackedLinear
    down: PackedLinear
    scale: float
    window: int


def _merged(*linears: Any) -> PackedLinear:
    weight = torch.cat([linear.weight for linear in linears])
    biases = [linear.bias for linear in linears]
    present = [b for b in biases if b is not None]
    if not present:
        return PackedLinear(weight, None)
    filled = [
        torch.zeros(linear.weight.shape[0], dtype=weight.dtype) if bias is None else bias
        for linear, bias in zip(linears, biases, strict=True)
    ]
    return PackedLinear(weight, torch.cat(filled))


def can_fuse(loaded: LoadedModel) -> bool:
    """Whether this model's layers are of the shape that the fused path computes."""
    model: Any = loaded.model
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not layers or any(type(layer).__name__ not in _LAYER_CLASSES for layer in layers):
        return False
    config = loaded.config
    widths = {g.width for g in loaded.geometry}
    return (
        config.hidden_act == "silu"
        and next(model.parameters()).device.type == "cpu"
        and can_pack(loaded.dtype)
        and all(width % _LANES == 0 for width in widths)
        and config.hidden_size % _LANES == 0
        and config.intermediate_size % _LANES == 0
        and not any(g.softcap for g in loaded.geometry)
    )


class FusedDecoder:
    """Takes the weights out of a loaded Llama-like model and runs them."""

    name = "fused"

    @torch.inference_mode()
    def __init__(self, loaded: LoadedModel) -> None:
        model: Any = loaded.model
        self._epsilon = float(loaded.config.rms_norm_eps)
        self._embedding: Tensor = model.model.embed_tokens.weight
        self._norm: Tensor = model.model.norm.weight
        self._head = PackedLinear(model.lm_head.weight, model.lm_head.bias)
        positions = torch.arange(loaded.context_length)[None]
        cosine, sine = model.model.rotary_emb(torch.empty(0, dtype=loaded.dtype), positions)
        self._cosine, self._sine = cosine[0].float().contiguous(), sine[0].float().contiguous()
        self._geometry = loaded.geometry
        self._layers = [self._take(layer, index) for index, layer in enumerate(model.model.layers)]
        # The packed copies are the only ones from here on.
        model.model.layers = nn.ModuleList()

    def _take(self, layer: Any, index: int) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        return _Layer(
            input_norm=layer.input_layernorm.weight,
            qkv=_merged(attention.q_proj, attention.k_proj, attention.v_proj),
            query_norm=None if query_norm is None else query_norm.weight,
            key_norm=None if key_norm is None else key_norm.weight,
            output=_merged(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate_up=_merged(mlp.gate_proj, mlp.up_proj),
            down=_merged(mlp.down_proj),
            scale=float(attention.scaling),
            window=self._geometry[index].window,
        )

    def forward(self, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.Decoder`."""
        hidden = embedding(batch.input_ids, self._embedding)
        tokens = hidden.shape[0]
        delta: Tensor | None = None
        for layer, shape, cache in zip(self._layers, self._geometry, batch.layers, strict=True):
            states = layer.qkv(residual_rms_norm(hidden, delta, layer.input_norm, self._epsilon))
            rotate_and_write_kv(
                states, shape.heads, shape.kv_heads, self._cosine, self._sine, batch.positions, batch.slots,
                cache.keys, cache.values, layer.query_norm, layer.key_norm, self._epsilon,
            )  # fmt: skip
            query = states.view(tokens, -1, shape.width)[:, : shape.heads]
            mixed = batch.attend_cached(cache, query, layer.scale, layer.window, 0.0)
            mixed = mixed.view(tokens, -1)
            if rows is not None and layer is self._layers[-1]:
                # Nobody looks at the other rows once the last keys and values are written.
                mixed, hidden = mixed[rows], hidden[rows]
                if not rows.numel():
                    return hidden
            delta = layer.output(mixed)
            states = layer.gate_up(residual_rms_norm(hidden, delta, layer.mlp_norm, self._epsilon))
            delta = layer.down(silu_mul(states))
        return residual_rms_norm(hidden, delta, self._norm, self._epsilon)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.Decoder`."""
        result: Tensor = self._head(hidden)
        return result
