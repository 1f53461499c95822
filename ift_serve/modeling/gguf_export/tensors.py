"""A Llama-like model's weights under GGUF's names and in its layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ift_serve.modeling.gguf_export.errors import GgufError

_WHOLE = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
_IN_LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
_ROTARY = ("default", "linear", "llama3")


def check_model(model: Any) -> None:
    """Raise GgufError unless GGUF's ``llama`` computes exactly this model."""
    name, config = type(model).__name__, model.config
    rope = config.rope_parameters
    if name not in _ARCHITECTURES:
        raise GgufError(f"{name} is not written; {', '.join(_ARCHITECTURES)} are")
    if config.hidden_act != "silu":
        raise GgufError(f"hidden_act {config.hidden_act} is not written; silu is")
    if getattr(config, "sliding_window", None) is not None:
        raise GgufError("a sliding window of attention is not written")
    if rope.get("rope_type", "default") not in _ROTARY or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise GgufError(f"rotary positions of type {rope.get('rope_type')} are not written; {', '.join(_ROTARY)} are")
    for path, parameter in model.named_parameters():
        gguf_name(path)
        if parameter.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise GgufError(f"{path} is {str(parameter.dtype).removeprefix('torch.')}")


def gguf_name(path: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` is ``blk.3.ffn_up.weight``."""
    stem, _, kind = path.rpartition(".")
    if path in _WHOLE:
        return f"{_WHOLE[path]}.weight"
    prefix, _, rest = stem.removeprefix("model.layers.").partition(".")
    if kind != "weight" or not prefix.isdigit() or rest not in _IN_LAYER:
        raise GgufError(f"{path} has no place there")
    return f"blk.{prefix}.{_IN_LAYER[rest]}.weight"


def gguf_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Matrices in the model's dtype, vectors in float32 as readers want them.

    A head that shares the embeddings' weight is left out: readers then take the embeddings.
    """
    config = model.config
    for path, parameter in model.named_parameters():
        weight = parameter.detach().cpu()
        if path.endswith("q_proj.weight"):
            weight = _pairs_side_by_side(weight, config.num_attention_heads)
        elif path.endswith("k_proj.weight"):
            weight = _pairs_side_by_side(weight, config.num_key_value_heads)
        yield gguf_name(path), weight.contiguous() if weight.ndim > 1 else weight.float().contiguous()
    if config.rope_parameters.get("rope_type", "default") != "default":
        yield "rope_freqs.weight", _frequency_divisors(model)


def _pairs_side_by_side(weight: Tensor, heads: int) -> Tensor:
    """GGUF's ``llama`` rotates neighbouring rows of a head, transformers' the rows half a head apart."""
    halves = weight.view(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def _frequency_divisors(model: Any) -> Tensor:
    """What each rotary frequency of rope_theta is divided by, which says any scaling that does not depend on length."""
    used: Tensor = model.model.rotary_emb.inv_freq.double().cpu()
    size = 2 * len(used)
    theta = float(model.config.rope_parameters["rope_theta"])
    plain: Tensor = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / used).float()
