"""A small model of the same structure, in which everything that acts only at a distance acts within a few tokens.

A window of 4096 tokens shows itself only in a prompt that is longer. The configuration is copied with small widths,
few layers, random weights and windows of a few tokens, so that a check at each start costs next to nothing. The width
of attention heads stays, since kernels are chosen by it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ift_serve.modeling.checkpoint.construction import model_construction
from ift_serve.modeling.checkpoint.meta_device import meta_device

WINDOW = 7
VOCABULARY = 192
_SOFT_CAP = 2.0
_INNER = 64
_HIDDEN = 128
_MOST_PARAMETERS = 100_000_000

_INNER_WIDTHS = ("intermediate", "ffn_dim", "n_inner", "ffn_hidden", "mlp_hidden")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_DISTANCES = ("attention_chunk_size", "index_topk", "local_attention", "floor_scale")
_PATTERNS = ("interval", "_step", "pattern", "freq", "first_k", "dense_layers", "every")
_STATIC_ROPE = ("yarn", "llama3")


def miniature_configs(config: Any) -> Iterator[Callable[[], Any]]:
    """Make copies of a model's configuration, the smallest first; the next is tried where the last makes no model."""
    yield lambda: _small(config, narrow=True, few_layers=True)
    yield lambda: deep_miniature_config(config)
    yield lambda: _small(config, narrow=False, few_layers=True)


def deep_miniature_config(config: Any) -> Any:
    """A copy of a model's configuration that has as many layers."""
    return _small(config, narrow=True, few_layers=False)


def original_window(config: Any) -> int | None:
    """What a window of ``WINDOW`` tokens in a miniature is in the model; None where that could be several."""
    sizes = {value for name, value in vars(config).items() if _is_distance(name) and isinstance(value, int) and value}
    return sizes.pop() if len(sizes) == 1 else None


def _small(config: Any, *, narrow: bool, few_layers: bool) -> Any:
    small = copy.deepcopy(config)
    text = small.get_text_config(decoder=True)
    _shorten_distances(text)
    _shrink_vocabulary(text)
    _shrink_vocabulary(small)
    if few_layers:
        _drop_layers(text)
    if narrow:
        _narrow(text)
    for part in _other_parts(small, text):
        _shrink_other(part)
    return small


def _is_distance(name: str) -> bool:
    return name in _DISTANCES or (
        "window" in name and "layers" not in name and "pattern" not in name and not name.startswith("use_")
    )


def random_model(model_class: Any, config: Any, attention: str) -> Any:
    """A float32 model on the CPU whose every parameter matters: none is zero or one all over.

    Raises ValueError where it would be too large.
    """
    with model_construction, meta_device():
        size = sum(p.numel() for p in model_class._from_config(copy.deepcopy(config)).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"its smallest structural copy has {size:,} parameters")
    with model_construction:
        model = model_class._from_config(copy.deepcopy(config), attn_implementation=attention, dtype=torch.float32)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(noise * 0.1)
            else:
                parameter.copy_(noise * 1.2 * parameter.shape[-1] ** -0.5)
    return model.eval().requires_grad_(False)


def _integers(config: Any) -> Iterator[tuple[str, int]]:
    for name, value in list(vars(config).items()):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            yield name, value


def _shorten_distances(config: Any) -> None:
    for name, value in list(vars(config).items()):
        distance = _is_distance(name)
        if distance and isinstance(value, int | float) and not isinstance(value, bool) and value > WINDOW:
            setattr(config, name, type(value)(WINDOW))
        elif distance and isinstance(value, list) and all(isinstance(v, int) for v in value):
            setattr(config, name, [min(v, WINDOW) for v in value])
        elif "softcap" in name and isinstance(value, float) and value:
            setattr(config, name, _SOFT_CAP)
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in [rope, *rope.values()]:
        if isinstance(parameters, dict) and parameters.get("rope_type") in _STATIC_ROPE:
            parameters["original_max_position_embeddings"] = 2 * WINDOW


def _shrink_vocabulary(config: Any) -> None:
    for name, value in _integers(config):
        if "vocab_size" in name and "type" not in name and value > VOCABULARY:
            setattr(config, name, VOCABULARY)
        elif name.endswith(("_token_id", "_token_index")) and value >= VOCABULARY:
            setattr(config, name, VOCABULARY - 1)
        elif name.endswith("_token_id") and value < VOCABULARY - 1:
            setattr(config, name, 0)
    if isinstance(getattr(config, "eos_token_id", None), list):
        config.eos_token_id = 0


def _drop_layers(config: Any) -> None:
    """Keep the first layers, as many as show every kind of layer."""
    count = int(config.num_hidden_layers)
    if getattr(config, "num_kv_shared_layers", 0):
        return
    lists = [name for name, value in vars(config).items() if isinstance(value, list | tuple) and len(value) == count]
    kinds = [str([getattr(config, name)[index] for name in lists]) for index in range(count)]
    kept = max([4, *(kinds.index(kind) + 1 for kind in set(kinds))])
    for name, value in _integers(config):
        if value < count and any(part in name for part in _PATTERNS):
            kept = max(kept, value + 1)
    if not lists and (first := getattr(config, "max_window_layers", None)):
        kept = max(kept, int(first) + 1)
    if kept >= count:
        return
    for name in lists:
        setattr(config, name, getattr(config, name)[:kept])
    config.num_hidden_layers = kept


def _narrow(config: Any) -> None:
    heads = int(_field(config, "num_attention_heads"))
    head_size = _field(config, "head_dim")
    width = int(head_size or config.hidden_size // heads)
    free = bool(head_size) and config.hidden_size != heads * width
    groups, few = 1, min(heads, 2)
    if keys := _field(config, "num_key_value_heads"):
        groups, few = min(heads // int(keys), 2), min(int(keys), 2)
        config.num_key_value_heads = few
    config.num_attention_heads = few * groups
    config.hidden_size = _HIDDEN if free else few * groups * width
    for name, value in list(vars(config).items()):
        if any(part in name for part in _INNER_WIDTHS):
            if isinstance(value, int) and value > _INNER:
                setattr(config, name, _INNER)
            elif isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
                setattr(config, name, type(value)([_INNER] * len(value)))
        elif name in _EXPERTS and isinstance(value, int):
            setattr(config, name, _few_experts(config, value))


def _field(config: Any, name: str) -> Any:
    """The configuration's own value, also where some layers have another and it may not be read as an attribute."""
    return vars(config)[name] if name in vars(config) else getattr(config, name, None)


def _few_experts(config: Any, experts: int) -> int:
    chosen = int(getattr(config, "num_experts_per_tok", 0) or 2)
    groups = int(getattr(config, "n_group", 0) or 1)
    few = -(-max(8, chosen + 1, 2 * groups) // groups) * groups
    return min(experts, few)


def _other_parts(config: Any, text: Any) -> Iterator[Any]:
    """Configurations of parts that no text passes through, such as vision towers."""
    for name in getattr(config, "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None and part is not text and hasattr(part, "to_dict"):
            yield part


def _shrink_other(config: Any) -> None:
    for name, value in _integers(config):
        if name in ("num_hidden_layers", "depth", "num_layers", "encoder_layers"):
            setattr(config, name, 1)
        elif name in ("intermediate_size", "encoder_ffn_dim") and value > _INNER:
            setattr(config, name, _INNER)
