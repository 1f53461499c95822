"""Loading a transformers model so that its attention is ours, or saying why it cannot be served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ift_serve.modeling.attention import ATTENTION_NAME, register_attention
from ift_serve.modeling.batch import GeometryProbe, LayerGeometry
from ift_serve.modeling.fingerprint import model_fingerprint

_PROBE_TOKENS = 6


class UnsupportedModelError(Exception):
    """The model cannot be served; the message names it, says why and what to do."""


@dataclass(slots=True)
class LoadedModel:
    """A causal language model whose every attention layer calls the batch it is given."""

    name: str
    path: str
    model: nn.Module
    config: Any
    geometry: list[LayerGeometry]
    dtype: torch.dtype
    context_length: int
    eos_ids: list[int]
    fingerprint: str
    parameters: int
    generation: dict[str, Any] = field(default_factory=dict)
    """What the model's ``generation_config`` sets."""

    @property
    def architecture(self) -> str:
        """The transformers class, such as ``LlamaForCausalLM``."""
        return type(self.model).__name__


def choose_dtype(requested: str, stored: torch.dtype | None, device: str) -> torch.dtype:
    """The dtype to compute in: half precision where the checkpoint is half and the device multiplies it natively."""
    if requested != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[requested]
    if stored not in (torch.bfloat16, torch.float16):
        return torch.float32
    if device == "cuda":
        return stored
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _stored_dtype(config: Any) -> torch.dtype | None:
    value = getattr(config, "dtype", None)
    return getattr(torch, value) if isinstance(value, str) else value


def _context_length(config: Any, requested: int | None, name: str) -> int:
    """The longest sequence that a flat batch computes exactly.

    LongRoPE and dynamic NTK choose frequencies by the largest position in the batch, which would let one
    caller's length change another's answer; such models are served up to the length where the choice is fixed.
    """
    limit = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 2048)
    rope = getattr(config, "rope_parameters", None) or {}
    nested = list(rope.values()) if rope and all(isinstance(v, dict) for v in rope.values()) else [rope]
    for parameters in nested:
        if parameters.get("rope_type") in ("longrope", "dynamic"):
            limit = min(limit, int(parameters.get("original_max_position_embeddings") or limit))
    if requested is not None and requested > limit:
        raise UnsupportedModelError(
            f"{name}: context_length {requested} is over the {limit} this model computes exactly"
        )
    return requested or limit


def _fingerprint(path: str, model: nn.Module, config: Any, name: str) -> str:
    try:
        return model_fingerprint(path, model, config)
    except OSError as error:
        raise UnsupportedModelError(f"{name}: cannot be loaded: {error}") from error


def model_ends(model: Any, config: Any) -> list[int]:
    """Tokens that end an answer by the model's generation configuration or configuration."""
    ends: list[int] = []
    for source in (getattr(model, "generation_config", None), config):
        value = getattr(source, "eos_token_id", None)
        ends += value if isinstance(value, list | tuple) else [] if value is None else [value]
    return list(dict.fromkeys(int(end) for end in ends))


def _probe(model: nn.Module, name: str, layers: int) -> list[LayerGeometry]:
    """Run a few tokens through the model: every attention layer must come by, with finite results."""
    probe = GeometryProbe()
    device = next(model.parameters()).device
    ids = torch.arange(1, _PROBE_TOKENS + 1, device=device)[None] % model.config.vocab_size  # type: ignore[union-attr,operator]
    positions = torch.arange(_PROBE_TOKENS, device=device)[None]
    try:
        routed: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False, batch=probe).logits
    except (TypeError, AttributeError, KeyError) as error:
        raise UnsupportedModelError(
            f"{name}: the attention of {type(model).__name__} cannot be routed ({error}); "
            "choose a decoder whose attention goes through transformers' AttentionInterface"
        ) from error
    if sorted(probe.layers) != list(range(layers)):
        raise UnsupportedModelError(
            f"{name}: only {len(probe.layers)} of the {layers} layers of {type(model).__name__} go through "
            "transformers' AttentionInterface; the others could not see the paged cache"
        )
    _check_against_own_attention(model, name, ids, positions, routed)
    return [probe.layers[index] for index in range(layers)]


def _check_against_own_attention(model: nn.Module, name: str, ids: Tensor, positions: Tensor, routed: Tensor) -> None:
    """The routed model must compute what the model computes by itself (catches biases the route does not carry)."""
    model.set_attn_implementation("eager")  # type: ignore[operator]
    own: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
    tolerance = 1e-3 if own.dtype == torch.float32 else 0.08
    difference = (own.float() - routed.float()).abs().max() / own.float().abs().max().clamp_min(1e-6)
    if not torch.isfinite(own).all():
        raise UnsupportedModelError(
            f"{name}: the model computes NaN or infinite logits in {own.dtype}; try another dtype"
        )
    if difference > tolerance:
        raise UnsupportedModelError(
            f"{name}: {type(model).__name__} computes differently with routed attention "
            f"(relative difference {difference:.2g}); its attention does something the route does not carry"
        )


@torch.inference_mode()
def load_model(
    path: str, *, name: str = "", dtype: str = "auto", device: str = "cpu", context_length: int | None = None
) -> LoadedModel:
    """Load a causal language model from a directory or hub id.

    Raises UnsupportedModelError when there is no such model, it is not a decoder, or its attention cannot be routed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    register_attention()
    config: Any = None
    shown = name or path.rstrip("/").rsplit("/", 1)[-1]
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        computed = choose_dtype(dtype, _stored_dtype(config), device)
        model = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=computed, attn_implementation=ATTENTION_NAME, trust_remote_code=False
        )
    except KeyError as error:
        # Models with an attention table of their own look the implementation up in it.
        architecture = ", ".join(getattr(config, "architectures", None) or [type(config).__name__])
        raise UnsupportedModelError(
            f"{shown}: the attention of {architecture} cannot be routed: it does not know implementation {error}; "
            "choose a decoder whose attention goes through transformers' AttentionInterface"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise UnsupportedModelError(f"{shown}: cannot be loaded: {error}") from error
    model = model.to(device).eval().requires_grad_(False)
    text_config = config.get_text_config(decoder=True)
    layers = int(text_config.num_hidden_layers)
    return LoadedModel(
        name=shown,
        path=path,
        model=model,
        config=text_config,
        geometry=_probe(model, shown, layers),
        dtype=computed,
        context_length=_context_length(text_config, context_length, shown),
        eos_ids=model_ends(model, text_config),
        fingerprint=_fingerprint(path, model, text_config, shown),
        parameters=sum(p.numel() for p in model.parameters()),
        generation=model.generation_config.to_diff_dict() if model.generation_config is not None else {},
    )
