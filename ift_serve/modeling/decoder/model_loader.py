"""Loading a transformers model so that its attention is ours, or saying why it cannot be served."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ift_kernels.quantized_linear import runs_here
from ift_serve.modeling.checkpoint.construction import model_construction
from ift_serve.modeling.checkpoint.files import ONE_MODEL, ModelFilesError, check_model_files, plain_cause
from ift_serve.modeling.checkpoint.fingerprint import model_fingerprint
from ift_serve.modeling.checkpoint.gguf_file import GGUF_WEIGHTS
from ift_serve.modeling.checkpoint.meta_device import nothing_drawn
from ift_serve.modeling.decoder.attention import ATTENTION_NAME, register_attention
from ift_serve.modeling.decoder.device_weights import has_torchao
from ift_serve.modeling.decoder.flat_batch import GeometryProbe, LayerGeometry, NotRoutedError
from ift_serve.modeling.decoder.gguf_weights import packed_weights
from ift_serve.modeling.decoder.linear import has_bf16_products
from ift_serve.modeling.decoder.quantization import QuantizedWeights, quantize_model, quantize_on_device
from ift_serve.modeling.decoder.rotary import depends_on_longest
from ift_serve.modeling.decoder.shard import Shard

_log = logging.getLogger(__name__)

_PROBE_TOKENS = 6
_UNTOLD_LENGTH = 2048
"""Tokens where a configuration does not say how many."""
_LONGEST_CAUSE = 200
CHOOSE = "choose a decoder whose attention goes through transformers' AttentionInterface (docs/models.md lists them)"


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
    quantized: QuantizedWeights = field(default_factory=QuantizedWeights)
    """Weights of 8 or 4 bits, until a decoder has taken them."""
    weights: str = "stored"
    """What they are in memory: stored, int8, int4, or gguf for the codes of a file."""
    shard: Shard | None = None
    """Of a model of which this process has a part; ``geometry`` is then of that part."""

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
    return torch.bfloat16 if has_bf16_products() else torch.float32


def _stored_dtype(config: Any) -> torch.dtype | None:
    value = getattr(config, "dtype", None)
    return getattr(torch, value) if isinstance(value, str) else value


def _context_length(config: Any, requested: int | None, name: str) -> int:
    """The longest sequence that a flat batch computes exactly.

    LongRoPE and dynamic NTK choose frequencies by the largest position in the batch, which would let one
    caller's length change another's answer; such models are served up to the length where the choice is fixed.
    """
    limit = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 0)
    limit = limit if limit > 0 else _UNTOLD_LENGTH  # XLNet says -1: any
    rope = getattr(config, "rope_parameters", None) or {}
    outer = getattr(config, "original_max_position_embeddings", None)
    for parameters in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if parameters.get("rope_type") in ("longrope", "dynamic"):
            limit = min(limit, int(parameters.get("original_max_position_embeddings") or outer or limit))
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


def _unloadable(error: Exception, kind: str) -> str:
    if isinstance(error, KeyError) and ATTENTION_NAME in error.args:
        # Models with an attention table of their own look the implementation up in it.
        return f"the attention of {kind} cannot be routed: it has a table of implementations of its own; {CHOOSE}"
    return f"{kind} cannot be loaded: {plain_cause(error)}"


def _check_complete(told: dict[str, Any], name: str, kind: str) -> None:
    """transformers fills what the files lack with random numbers, and leaves out what its class lacks."""
    lacking = sorted(told.get("missing_keys") or ())
    other_shapes = sorted(str(entry[0]) for entry in told.get("mismatched_keys") or ())
    for tensors, what in ((lacking, "not in the weights"), (other_shapes, "of another shape in the weights")):
        if tensors:
            raise UnsupportedModelError(
                f"{name}: {len(tensors)} tensors of {kind} are {what} (the first: {tensors[0]}); {ONE_MODEL}"
            )
    surplus = sorted(told.get("unexpected_keys") or ())
    if surplus:
        _log.warning(
            "%s: %d tensors of its files are no part of %s (the first: %s)", name, len(surplus), kind, surplus[0]
        )


def model_ends(model: Any, config: Any) -> list[int]:
    """Tokens that end an answer by the model's generation configuration or configuration."""
    ends: list[int] = []
    for source in (getattr(model, "generation_config", None), config):
        value = getattr(source, "eos_token_id", None)
        ends += value if isinstance(value, list | tuple) else [] if value is None else [value]
    return list(dict.fromkeys(int(end) for end in ends))


def layer_geometry(model: Any, config: Any, name: str) -> list[LayerGeometry]:
    """What every attention layer is called with, by running a few tokens through the routed model.

    Raises UnsupportedModelError where a layer does not come by, or is of a kind that flat batches do not compute.
    """
    kind = type(model).__name__
    for needed in ("num_hidden_layers", "vocab_size"):
        if not isinstance(getattr(config, needed, None), int):
            raise UnsupportedModelError(
                f"{name}: {kind} cannot be served: its configuration has no {needed}, so it is no single stack of "
                f"layers over token ids; {CHOOSE}"
            )
    layers = int(config.num_hidden_layers)
    probe = GeometryProbe(_PROBE_TOKENS)
    device = next(model.parameters()).device
    ids = torch.arange(1, _PROBE_TOKENS + 1, device=device)[None] % int(config.vocab_size)
    positions = torch.arange(_PROBE_TOKENS, device=device)[None]
    try:
        model(input_ids=ids, position_ids=positions, use_cache=False, batch=probe)
    except NotRoutedError as error:
        raise UnsupportedModelError(f"{name}: {kind} cannot be served: {error}; {CHOOSE}") from error
    except Exception as error:  # whatever a class does with a keyword it does not know
        shown = " ".join(str(error).split())[:_LONGEST_CAUSE]
        raise UnsupportedModelError(
            f"{name}: the attention of {kind} cannot be routed ({type(error).__name__}: {shown}); {CHOOSE}"
        ) from error
    if sorted(probe.layers) != list(range(layers)):
        raise UnsupportedModelError(
            f"{name}: only {len(probe.layers)} of the {layers} layers of {kind} go through transformers' "
            f"AttentionInterface; the others (recurrent or linear attention, mostly) could not see the paged cache; "
            f"{CHOOSE}"
        )
    return [probe.layers[index] for index in range(layers)]


def load_whole(
    path: str, shown: str, choose: Callable[[Any], torch.dtype], **options: Any
) -> tuple[Any, Any, torch.dtype]:
    """The transformers model with all of its weights and its attention routed; its configuration; its dtype.

    shown: what errors call it. choose: the dtype for a configuration. options: more of ``from_pretrained``'s. Raises
    UnsupportedModelError where files are missing or damaged, or hold other tensors than the class has.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    register_attention()
    try:
        check_model_files(path)
    except ModelFilesError as error:
        raise UnsupportedModelError(f"{shown}: {error}") from error
    kind = "its configuration"
    if _holds_gguf(path):
        options |= {
            "gguf_file": GGUF_WEIGHTS,
            "quantization_config": GgufConfig(gguf_file=GGUF_WEIGHTS, dequantize=True),
        }
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        kind = ", ".join(getattr(config, "architectures", None) or [type(config).__name__])
        computed = choose(config)
        with model_construction, nothing_drawn():
            model, told = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=computed,
                attn_implementation=ATTENTION_NAME,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # whatever a library does with files that it does not expect
        raise UnsupportedModelError(f"{shown}: {_unloadable(error, kind)}") from error
    _check_complete(told, shown, kind)
    return model, config, computed


def _holds_gguf(path: str) -> bool:
    return (Path(path) / GGUF_WEIGHTS).is_file()


def _quantized(model: Any, path: str, weights: str, computed: torch.dtype, device: str, name: str) -> QuantizedWeights:
    packs = device == "cpu" and runs_here() and computed == torch.float32
    if weights == "auto":
        return _packed(model, path, name) if packs and _holds_gguf(path) else QuantizedWeights()
    if device == "cuda":
        return _quantized_on_device(model, weights, computed, name)
    if device != "cpu" or not runs_here():
        raise UnsupportedModelError(
            f"{name}: weights: {weights} needs a processor with AVX2 (x86-64), or a GPU; choose auto"
        )
    if computed not in (torch.float32, torch.bfloat16):
        raise UnsupportedModelError(f"{name}: weights: {weights} computes in float32 or bfloat16; choose another dtype")
    return _told(quantize_model(model, weights), model, weights, name)


def _quantized_on_device(model: Any, weights: str, computed: torch.dtype, name: str) -> QuantizedWeights:
    if not has_torchao():
        raise UnsupportedModelError(
            f"{name}: weights: {weights} on a GPU needs torchao: pip install 'ift-serve[quantized]', or choose auto"
        )
    if weights == "int4" and computed != torch.bfloat16:
        raise UnsupportedModelError(
            f"{name}: weights: int4 on a GPU computes in bfloat16, and not {str(computed).removeprefix('torch.')}; "
            "choose dtype bfloat16, or int8"
        )
    if weights == "int4" and torch.cuda.get_device_capability()[0] < 8:
        raise UnsupportedModelError(f"{name}: weights: int4 needs a GPU from Ampere on (sm_80); choose int8 or auto")
    return _told(quantize_on_device(model, weights), model, weights, name)


def _told(found: QuantizedWeights, model: Any, weights: str, name: str) -> QuantizedWeights:
    """Raises UnsupportedModelError where nothing is quantized; a warning names what is not."""
    if not found:
        raise UnsupportedModelError(
            f"{name}: weights: no linear layer of {type(model).__name__} can have {weights} (its inputs must be a "
            "multiple of 32, its outputs of 16); choose auto"
        )
    if found.plain:
        _log.warning(
            "%s: %d linear layers stay as they are stored, since their shape fits no group of %s (the first: %s)",
            name, len(found.plain), weights, found.plain[0],
        )  # fmt: skip
    return found


def _packed(model: Any, path: str, name: str) -> QuantizedWeights:
    try:
        found = packed_weights(model, Path(path) / GGUF_WEIGHTS)
    except OSError as error:
        raise UnsupportedModelError(f"{name}: cannot be loaded: {error}") from error
    if found.plain:
        _log.warning(
            "%s: %d matrices of the file are of kinds that are not multiplied as they are, and are served dequantised "
            "(the first: %s)", name, len(found.plain), found.plain[0],
        )  # fmt: skip
    return found


@torch.inference_mode()
def load_model(
    path: str,
    *,
    name: str = "",
    dtype: str = "auto",
    weights: str = "auto",
    device: str = "cpu",
    context_length: int | None = None,
    on_host: bool = False,
) -> LoadedModel:
    """Load a causal language model from a directory or hub id.

    weights: ``auto`` as they are stored, ``int8`` or ``int4`` rounded to so many bits. on_host: keep it in host memory,
    in the dtype that ``device`` computes in.

    Raises UnsupportedModelError when there is no such model, it is not a decoder, or its attention cannot be routed.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it warns of at length while loading is said here in a sentence
    shown = name or path.rstrip("/").rsplit("/", 1)[-1]
    with model_construction:  # another thread's would change the dtype of what is computed here
        return _load(path, shown, dtype, weights, device, context_length, on_host=on_host)


def _load(
    path: str, shown: str, dtype: str, weights: str, device: str, context_length: int | None, *, on_host: bool
) -> LoadedModel:
    model, config, computed = load_whole(path, shown, lambda c: choose_dtype(dtype, _stored_dtype(c), device))
    model = model.to("cpu" if on_host else device).eval().requires_grad_(False)
    text_config = config.get_text_config(decoder=True)
    length = _context_length(text_config, context_length, shown)
    if depends_on_longest(model, text_config, length):
        raise UnsupportedModelError(
            f"{shown}: the rotary embeddings of {type(model).__name__} depend on the longest sequence in a batch; "
            "choose a smaller context_length, at which they do not, or another model"
        )
    geometry = layer_geometry(model, text_config, shown)
    parameters = sum(p.numel() for p in model.parameters())
    quantized = _quantized(model, path, weights, computed, device, shown)
    return LoadedModel(
        name=shown,
        path=path,
        model=model,
        config=text_config,
        geometry=geometry,
        dtype=computed,
        context_length=length,
        eos_ids=model_ends(model, text_config),
        fingerprint=_fingerprint(path, model, text_config, shown),
        parameters=parameters,
        quantized=quantized,
        weights=("gguf" if weights == "auto" else weights) if quantized else "stored",
        generation=model.generation_config.to_diff_dict() if model.generation_config is not None else {},
    )
