"""Reads and checks an adapter directory against a base model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ift_serve.modeling.adapters.base import BaseFacts
from ift_serve.modeling.adapters.config import (
    IFT_CONFIG,
    IFT_WEIGHTS,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    IftConfig,
    PeftConfig,
    ift_config,
    peft_config,
)
from ift_serve.modeling.adapters.safe_file import SafeDirectory, read_tensors
from ift_serve.modeling.adapters.weights import AdapterError, AdapterWeights, LoraModule
from ift_serve.modeling.instruction.components import InstructionComponents
from ift_serve.modeling.instruction.config import BaseShape, ComponentsConfig

_PREFIX = "base_model.model."
_PARTS = {
    ".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_embedding_A": "a", ".lora_embedding_B": "b",
    ".lora_magnitude_vector": "magnitude", ".lora_magnitude_vector.weight": "magnitude",
}  # fmt: skip
_TOKENS = ".token_adapter.trainable_tokens_delta"
_SLACK = 1 << 20


def shape_of(base: BaseFacts) -> BaseShape:
    """The dimensions that components depend on."""
    return BaseShape(
        hidden_size=base.hidden_size, layers=base.layers, heads=base.heads, vocabulary_size=base.vocabulary_size
    )


def read_adapter(directory: Path, base: BaseFacts, root: Path | None = None, max_rank: int = 256) -> AdapterWeights:
    """Everything in the directory, each tensor accounted for. Raises AdapterError, which says what is wrong where."""
    files = SafeDirectory(directory, root)
    files.refuse_unsafe()
    digest = hashlib.sha256()
    fields = files.read_json(PEFT_CONFIG)
    own_fields = files.read_json(IFT_CONFIG)
    if fields is None and own_fields is None:
        raise AdapterError(f"{directory.name}: holds neither {PEFT_CONFIG} nor {IFT_CONFIG}; not an adapter directory")
    own = None if own_fields is None else ift_config(own_fields)
    if own is not None:
        _check_base(own, base)
    weights = AdapterWeights("", 0, {}, {}, {}, ComponentsConfig(), config=own)
    if fields is not None:
        config = peft_config(fields)
        raw = files.read(PEFT_WEIGHTS, _largest(base, max_rank))
        if raw is None:
            raise AdapterError(f"{PEFT_WEIGHTS}: missing")
        digest.update(raw)
        _take_lora(weights, read_tensors(PEFT_WEIGHTS, raw), config, base, max_rank)
    elif files.read(PEFT_WEIGHTS, _largest(base, max_rank)) is not None:
        raise AdapterError(f"{PEFT_CONFIG}: missing, though there is {PEFT_WEIGHTS}")
    _take_extras(weights, files, own, base, digest)
    digest.update(repr((fields, own_fields)).encode())
    weights.version = digest.hexdigest()[:16]
    weights.rank = max((module.a.shape[0] for module in weights.lora.values()), default=0)
    weights.bytes = sum(t.numel() * t.element_size() for t in _tensors(weights))
    return weights


def _largest(base: BaseFacts, max_rank: int) -> int:
    """More bytes than any adapter of this base can have: full embeddings and head, and LoRA everywhere in float32."""
    full = 2 * base.vocabulary_size * base.hidden_size
    low_rank = sum(max_rank * sum(shape) for shape in base.shapes.values() if len(shape) == 2)
    return 8 * (full + low_rank) + _SLACK


def _check_base(own: IftConfig, base: BaseFacts) -> None:
    if own.base.architecture != base.architecture or own.base.shape != shape_of(base):
        raise AdapterError(
            f"{IFT_CONFIG}: base: made for {own.base.architecture} ({own.base.shape.hidden_size} wide, "
            f"{own.base.shape.layers} layers), this is {base.architecture} ({base.hidden_size} wide, {base.layers})"
        )
    if own.base.fingerprint != base.fingerprint:
        raise AdapterError(
            f"{IFT_CONFIG}: base.fingerprint: made for a base model with other weights "
            f"({own.base.fingerprint[:12]}, this is {base.fingerprint[:12]}); train it on the model that is served"
        )


def _tensors(weights: AdapterWeights) -> list[Tensor]:
    factors = [t for m in weights.lora.values() for t in (m.a, m.b, m.magnitude) if t is not None]
    tokens = [rows for _, rows in weights.token_rows.values()]
    return [*factors, *tokens, *weights.replaced.values(), *weights.extras.values()]


def _take_lora(
    weights: AdapterWeights, tensors: dict[str, Tensor], config: PeftConfig, base: BaseFacts, max_rank: int
) -> None:
    """Sort PEFT's tensors by module."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not key.startswith(_PREFIX):
            raise AdapterError(f"{PEFT_WEIGHTS}: {key[:120]}: not a name that PEFT gives")
        name = key.removeprefix(_PREFIX)
        suffix = next((s for s in _PARTS if name.endswith(s)), None)
        if suffix is not None:
            parts.setdefault(name.removesuffix(suffix), {})[_PARTS[suffix]] = tensor
        elif name.endswith(_TOKENS):
            _take_tokens(weights, name.removesuffix(_TOKENS), tensor, config, base)
        else:
            _take_replaced(weights, name, tensor, config, base)
    for path, found in parts.items():
        weights.lora[path] = _module(path, found, config, base, max_rank)
    if isinstance(config.target_modules, list):
        for target in config.target_modules:
            if not any(path == target or path.endswith(f".{target}") for path in weights.lora):
                raise AdapterError(f"{PEFT_CONFIG}: target_modules: {target[:80]!r} has no tensor in {PEFT_WEIGHTS}")


def _module(path: str, found: dict[str, Tensor], config: PeftConfig, base: BaseFacts, max_rank: int) -> LoraModule:
    shown = f"{PEFT_WEIGHTS}: {path[:120]}"
    if f"{path}.weight" not in base.shapes or not (path in base.linears or path == base.embedding_path):
        raise AdapterError(f"{shown}: the base model has no such linear layer or embedding")
    if not config.targets(path):
        raise AdapterError(f"{shown}: {PEFT_CONFIG} does not name it in target_modules")
    if "a" not in found or "b" not in found:
        raise AdapterError(f"{shown}: one of its two factors is missing")
    a, b, magnitude = found["a"], found["b"], found.get("magnitude")
    rank = config.rank_of(path)
    if rank > max_rank:
        raise AdapterError(f"{PEFT_CONFIG}: rank {rank} of {path[:120]} is over the {max_rank} that is served")
    rows, columns = base.shapes[f"{path}.weight"]
    outputs, inputs = (columns, rows) if path == base.embedding_path else (rows, columns)
    if tuple(a.shape) != (rank, inputs) or tuple(b.shape) != (outputs, rank):
        raise AdapterError(
            f"{shown}: factors {tuple(a.shape)} and {tuple(b.shape)}; the base model and rank {rank} want "
            f"{(rank, inputs)} and {(outputs, rank)}"
        )
    if config.use_dora != (magnitude is not None):
        raise AdapterError(f"{shown}: its magnitude and use_dora in {PEFT_CONFIG} contradict one another")
    if magnitude is not None and magnitude.numel() != outputs:
        raise AdapterError(f"{shown}: {magnitude.numel()} magnitudes for {outputs} outputs")
    return LoraModule(a, b, config.scale_of(path), magnitude)


def _take_tokens(weights: AdapterWeights, path: str, rows: Tensor, config: PeftConfig, base: BaseFacts) -> None:
    shown = f"{PEFT_WEIGHTS}: {path[:120]}"
    indices = config.trainable_token_indices
    if path != base.embedding_path:
        raise AdapterError(f"{shown}: trainable tokens are served for the input embeddings only")
    if base.tied:
        raise AdapterError(f"{shown}: trainable tokens of embeddings that the head shares are not served")
    if isinstance(indices, dict):
        indices = next((ids for name, ids in indices.items() if path.endswith(name)), None)
    if indices is None or rows.shape != (len(indices), base.hidden_size):
        raise AdapterError(f"{shown}: {tuple(rows.shape)} rows do not fit trainable_token_indices in {PEFT_CONFIG}")
    if len(set(indices)) != len(indices) or not all(0 <= i < base.vocabulary_size for i in indices):
        raise AdapterError(f"{PEFT_CONFIG}: trainable_token_indices: ids repeat or are outside the vocabulary")
    ids, order = torch.tensor(indices, dtype=torch.int64).sort()
    weights.token_rows[path] = (ids, rows[order])


def _take_replaced(weights: AdapterWeights, name: str, tensor: Tensor, config: PeftConfig, base: BaseFacts) -> None:
    # PEFT writes the embeddings themselves beside their low-rank change.
    name = name.replace(".base_layer.", ".")
    module = name.rsplit(".", 1)[0]
    saved = config.modules_to_save or []
    adapted = module in (base.embedding_path, base.head_path) and config.targets(module)
    named = any(module == s or module.endswith(f".{s}") for s in saved)
    if name not in base.shapes or not (named or adapted):
        raise AdapterError(f"{PEFT_WEIGHTS}: {name[:120]}: neither LoRA nor one of modules_to_save")
    if tuple(tensor.shape) != base.shapes[name]:
        raise AdapterError(
            f"{PEFT_WEIGHTS}: {name[:120]}: shape {tuple(tensor.shape)}, the base has {base.shapes[name]}"
        )
    if base.tied and module in (base.embedding_path, base.head_path):
        raise AdapterError(f"{PEFT_WEIGHTS}: {name[:120]}: a head or embedding that share weights cannot be replaced")
    weights.replaced[name] = tensor


def _take_extras(
    weights: AdapterWeights, files: SafeDirectory, own: IftConfig | None, base: BaseFacts, digest: Any
) -> None:
    """The components' tensors: exactly those that the configuration implies."""
    components = ComponentsConfig() if own is None else own.components
    expected: dict[str, Tensor] = {}
    if components.names:
        with torch.device("meta"):
            expected = InstructionComponents(components, shape_of(base)).state_dict()
    largest = 8 * sum(t.numel() for t in expected.values()) + _SLACK
    raw = files.read(IFT_WEIGHTS, largest)
    if raw is None:
        if expected:
            raise AdapterError(f"{IFT_WEIGHTS}: missing, though {IFT_CONFIG} names components")
        return
    if own is None:
        raise AdapterError(f"{IFT_CONFIG}: missing, though there is {IFT_WEIGHTS}")
    digest.update(raw)
    tensors = read_tensors(IFT_WEIGHTS, raw)
    for name in [*(n for n in tensors if n not in expected), *(n for n in expected if n not in tensors)]:
        what = "is not part of" if name in tensors else "is missing for"
        raise AdapterError(f"{IFT_WEIGHTS}: {name[:120]}: {what} the components in {IFT_CONFIG}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise AdapterError(
                f"{IFT_WEIGHTS}: {name[:120]}: shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
    weights.components, weights.extras = components, tensors
