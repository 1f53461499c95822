"""A model's weights under GGUF's names and in its layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ift_serve.modeling.gguf_export.errors import GgufError

_WHOLE = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What GGUF's architecture of that name computes.

    rotates_neighbours: whether the two rows of a rotary pair are side by side, not half a head apart as transformers
    has them. biased: layers' parts with a bias. rotary: kinds of positions. free_head_size: whether heads may have
    another size than hidden size over heads.
    """

    name: str
    rotates_neighbours: bool
    biased: frozenset[str]
    rotary: tuple[str, ...]
    free_head_size: bool


_LLAMA = Architecture("llama", True, frozenset(), ("default", "linear", "llama3"), True)
_QWEN2 = Architecture("qwen2", False, frozenset({"attn_q", "attn_k", "attn_v"}), ("default",), False)
_ARCHITECTURES = {"LlamaForCausalLM": _LLAMA, "MistralForCausalLM": _LLAMA, "Qwen2ForCausalLM": _QWEN2}


def architecture_of(model: Any) -> Architecture:
    """GGUF's architecture that computes exactly this model. Raises GgufError where there is none."""
    name, config = type(model).__name__, model.config
    if name not in _ARCHITECTURES:
        raise GgufError(f"{name} is not written; {', '.join(_ARCHITECTURES)} are")
    found = _ARCHITECTURES[name]
    rope = config.rope_parameters
    if config.hidden_act != "silu":
        raise GgufError(f"hidden_act {config.hidden_act} is not written; silu is")
    if getattr(config, "sliding_window", None) is not None:
        raise GgufError("a sliding window of attention is not written")
    if rope.get("rope_type", "default") not in found.rotary or rope.get("partial_rotary_factor", 1.0) != 1.0:
        kinds = ", ".join(found.rotary)
        raise GgufError(f"rotary positions of type {rope.get('rope_type')} are not written for {name}; {kinds} are")
    if not found.free_head_size and head_size(config) * config.num_attention_heads != config.hidden_size:
        raise GgufError(f"heads of {head_size(config)} are not written for {name}; hidden_size over heads is")
    for path, parameter in model.named_parameters():
        gguf_name(path, found)
        if parameter.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise GgufError(f"{path} is {str(parameter.dtype).removeprefix('torch.')}")
    return found


def head_size(config: Any) -> int:
    """Width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def gguf_name(path: str, architecture: Architecture) -> str:
    """``model.layers.3.mlp.up_proj.weight`` is ``blk.3.ffn_up.weight``."""
    stem, _, kind = path.rpartition(".")
    if path in _WHOLE:
        return f"{_WHOLE[path]}.weight"
    prefix, _, rest = stem.removeprefix("model.layers.").partition(".")
    part = _IN_LAYER.get(rest, "")
    if not prefix.isdigit() or not part or (kind != "weight" and (kind != "bias" or part not in architecture.biased)):
        raise GgufError(f"{path} has no place there")
    return f"blk.{prefix}.{part}.{kind}"


def gguf_tensors(model: Any, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """Matrices in the model's dtype, vectors in float32 as readers want them.

    A head that shares the embeddings' weight is left out: readers then take the embeddings.
    """
    config = model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for path, parameter in model.named_parameters():
        weight, part = parameter.detach().cpu(), path.split(".")[-2]
        if architecture.rotates_neighbours and part in heads:
            weight = _pairs_side_by_side(weight, heads[part])
        yield gguf_name(path, architecture), weight.contiguous() if weight.ndim > 1 else weight.float().contiguous()
    if config.rope_parameters.get("rope_type", "default") != "default":
        yield "rope_freqs.weight", _frequency_divisors(model)


def _pairs_side_by_side(weight: Tensor, heads: int) -> Tensor:
    halves = weight.view(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def _frequency_divisors(model: Any) -> Tensor:
    """What each rotary frequency of rope_theta is divided by, which says any scaling that does not depend on length."""
    used: Tensor = model.model.rotary_emb.inv_freq.double().cpu()
    size = 2 * len(used)
    theta = float(model.config.rope_parameters["rope_theta"])
    plain: Tensor = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / used).float()
