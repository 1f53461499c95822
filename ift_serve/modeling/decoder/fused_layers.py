"""Llama-like decoders in nine calls a layer, computing what transformers' modules compute.

At small batches a transformers layer spends most of its time in Python and in some forty small operations. Here
queries, keys and values come from one product, gate and up from another, and normalisation, rotation, cache
write, attention and gating are one kernel each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ift_kernels.fused_add_rms_norm import fused_add_rms_norm
from ift_kernels.silu_and_mul import silu_and_mul
from ift_kernels.write_kv import rotate_and_write_kv
from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.decoder.embedding import TokenEmbeddings
from ift_serve.modeling.decoder.flat_batch import FlatBatch
from ift_serve.modeling.decoder.linear import Linear, can_pack, join_linears
from ift_serve.modeling.decoder.model_loader import LoadedModel
from ift_serve.modeling.decoder.quantization import QuantizedWeights
from ift_serve.modeling.decoder.tail import ModelTail

_LANES = 16
_LAYER_CLASSES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")


@dataclass(slots=True)
class _Layer:
    """The packed weights of one decoder layer."""

    input_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    scale: float
    window: int


def _bounds(*widths: int) -> tuple[int, ...]:
    return (0, *accumulate(widths))


def can_fuse(loaded: LoadedModel) -> bool:
    """Whether this model's layers are of the shape that the fused path computes."""
    model: Any = loaded.model
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not layers or any(type(layer).__name__ not in _LAYER_CLASSES for layer in layers):
        return False
    config = loaded.config
    if config.hidden_act != "silu" or any(g.softcap for g in loaded.geometry):
        return False
    if not ModelTail(model).recognise().is_product:
        return False
    if next(model.parameters()).device.type != "cpu":
        return True
    inner = layers[0].mlp.gate_proj.out_features  # of a part of the model fewer than its configuration says
    sizes = {g.width for g in loaded.geometry} | {config.hidden_size, inner}
    return can_pack(loaded.dtype) and not any(size % _LANES for size in sizes)


class FusedDecoder:
    """Takes the weights out of a loaded Llama-like model and runs them."""

    name = "fused"

    @torch.inference_mode()
    def __init__(self, loaded: LoadedModel, backend: str = "auto") -> None:
        """backend: of the products; only an invariant one has others than the fastest."""
        model: Any = loaded.model
        self._epsilon = float(loaded.config.rms_norm_eps)
        quantized = loaded.quantized
        embeddings = model.model.embed_tokens
        self._embeddings = TokenEmbeddings(quantized.packed(embeddings) or embeddings.weight, loaded.dtype)
        self._norm: Tensor = model.model.norm.weight
        self._head = join_linears([model.lm_head], quantized, backend)
        device = embeddings.weight.device
        positions = torch.arange(loaded.context_length, device=device)[None]
        cosine, sine = model.model.rotary_emb(torch.empty(0, dtype=loaded.dtype, device=device), positions)
        self._cosine, self._sine = cosine[0].float().contiguous(), sine[0].float().contiguous()
        self._geometry = loaded.geometry
        self.has_packed_products = device.type == "cpu"
        self._shard = loaded.shard
        self._layers = [self._take(layer, index, quantized, backend) for index, layer in enumerate(model.model.layers)]
        # The packed copies are the only ones from here on.
        model.model.layers = nn.ModuleList()
        quantized.clear()

    def _take(self, layer: Any, index: int, quantized: QuantizedWeights, backend: str) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        return _Layer(
            input_norm=layer.input_layernorm.weight,
            qkv=join_linears([attention.q_proj, attention.k_proj, attention.v_proj], quantized, backend),
            query_norm=None if query_norm is None else query_norm.weight,
            key_norm=None if key_norm is None else key_norm.weight,
            output=join_linears([attention.o_proj], quantized, backend),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate_up=join_linears([mlp.gate_proj, mlp.up_proj], quantized, backend),
            down=join_linears([mlp.down_proj], quantized, backend),
            scale=float(attention.scaling),
            window=self._geometry[index].window,
        )

    def embed(self, input_ids: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`."""
        return self._embeddings(input_ids)

    def embedding_table(self) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`."""
        return self._embeddings.dense()

    def adaptable(self) -> list[AdaptableLinear]:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`."""
        found = []
        for index, (layer, shape) in enumerate(zip(self._layers, self._geometry, strict=True)):
            path = f"model.layers.{index}"
            queries, keys = shape.heads * shape.width, shape.kv_heads * shape.width
            half = layer.gate_up.out_features // 2
            attention = [f"{path}.self_attn.{name}_proj" for name in "qkvo"]
            found += [
                AdaptableLinear(tuple(attention[:3]), layer.qkv.in_features, _bounds(queries, keys, keys)),
                AdaptableLinear((attention[3],), layer.output.in_features, (0, layer.output.out_features)),
                AdaptableLinear(
                    (f"{path}.mlp.gate_proj", f"{path}.mlp.up_proj"), layer.gate_up.in_features, _bounds(half, half)
                ),
                AdaptableLinear((f"{path}.mlp.down_proj",), layer.down.in_features, (0, layer.down.out_features)),
            ]
        return found

    def base_linear(self, index: int) -> tuple[Tensor, Tensor | None]:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`."""
        if index == 4 * len(self._layers):
            return self._head.dense()
        layer = self._layers[index // 4]
        return (layer.qkv, layer.output, layer.gate_up, layer.down)[index % 4].dense()

    def forward(self, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`."""
        hidden = self.embed(batch.input_ids)
        if batch.adaptation is not None:
            hidden = batch.adaptation.embed(hidden)
        return self.run_layers(hidden, batch, rows)

    def run_layers(self, hidden: Tensor, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """``forward`` from the embeddings ``hidden`` on, ``[T, d]``, which are written over."""
        adaptation, lora, backend, shard = batch.adaptation, batch.lora, batch.backend, self._shard
        tokens = hidden.shape[0]
        delta: Tensor | None = None
        selected = rows is None
        for index, (layer, shape, cache) in enumerate(zip(self._layers, self._geometry, batch.layers, strict=True)):
            normal = fused_add_rms_norm(hidden, delta, layer.input_norm, self._epsilon, backend)
            states = layer.qkv(normal)
            if lora is not None:
                lora.add(4 * index, normal, states)
            rotate_and_write_kv(
                states,
                shape.heads,
                shape.kv_heads,
                self._cosine,
                self._sine,
                batch.positions,
                batch.slots,
                cache.keys,
                cache.values,
                layer.query_norm,
                layer.key_norm,
                self._epsilon,
                key_scale=cache.key_scale,
                value_scale=cache.value_scale,
                backend=backend,
            )
            query = states.view(tokens, -1, shape.width)[:, : shape.heads]
            mixed = batch.attend_cached(index, query, layer.scale, layer.window, 0.0).view(tokens, -1)
            last = layer is self._layers[-1]
            if rows is not None and last and adaptation is None and lora is None:
                # Nobody looks at the other rows once the last keys and values are written.
                mixed, hidden, selected = mixed[rows], hidden[rows], True
                if not rows.numel():
                    return hidden
            delta = layer.output(mixed)
            if lora is not None:
                lora.add(4 * index + 1, mixed, delta)
            if shard is not None:
                delta = shard.sum(delta)
            normal = fused_add_rms_norm(hidden, delta, layer.mlp_norm, self._epsilon, backend)
            states = layer.gate_up(normal)
            if lora is not None:
                lora.add(4 * index + 2, normal, states)
            active = silu_and_mul(states, backend)
            delta = layer.down(active)
            if lora is not None:
                lora.add(4 * index + 3, active, delta)
            if shard is not None:
                delta = shard.sum(delta)
            if adaptation is not None and adaptation.changes_layers:
                hidden = adaptation.after_layer(index, hidden, delta)
                delta = None
        hidden = fused_add_rms_norm(hidden, delta, self._norm, self._epsilon, backend)
        if adaptation is not None:
            hidden = adaptation.before_head(hidden)
        return hidden if selected or rows is None else hidden[rows]

    finishes, head_adaptable = False, True

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`."""
        result: Tensor = self._head(hidden)
        return result if self._shard is None else self._shard.join(result)

    head = logits

    def finish(self, products: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.decoder.Decoder`; such models leave the products as they are."""
        return products
