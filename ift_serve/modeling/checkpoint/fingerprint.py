"""Fingerprint of a base model: a hash of its weights and its structure."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ift_serve.modeling.checkpoint.stored_weights import StoredTensor, model_directory, stored_tensors, weight_files

_SCHEME = "v2-"
_UNSTRUCTURED = re.compile(
    # Names, versions and the dtype that is computed in.
    r".*name_or_path|transformers_version|unsloth_version|_commit_hash|architectures|auto_map|transformers_weights"
    r"|dtype|torch_dtype"
    # Special tokens: they end and pad texts and change no number.
    r"|[a-z_]*_token_ids?"
    # What acts in training only, or chooses what is returned and how it is computed.
    r"|.*dropout.*|.*_pdrop|.*layerdrop|initializer_range|router_aux_loss_coef|gradient_checkpointing|pretraining_tp"
    r"|use_cache|return_dict|output_attentions|output_hidden_states|output_router_logits|chunk_size_feed_forward"
    r"|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params"
)
_NO_WEIGHTS = re.compile(r"rotary_emb\.inv_freq|(^|\.)position_ids$")
"""Buffers that older checkpoints hold and transformers computes."""


def model_fingerprint(path: str | Path, model: Any, config: Any) -> str:
    """A hash that tells base models apart by their weights and structure, and by nothing else.

    path: the directory or hub id that the weights are loaded from. model: the transformers model, whose own names and
    shared weights count; it may be on the meta device. config: its text configuration.

    The same weights have the same fingerprint under any name, in any number of shards, in safetensors or in
    transformers' ``pytorch_model.bin``, with shared weights stored once or twice, and with whatever version of
    transformers the configuration was saved. Every element of every weight counts, as it is stored: a model converted
    to another dtype, or quantised, has other weights, even where it computes the same numbers. What is computed in
    (``--dtype``) does not count. A checkpoint in an older format whose names transformers translates counts as
    another model than the translated one.

    The files are hashed once and remembered by path, size, inode and times (see ``stored_tensors``). Begins with the
    scheme's number, so that a fingerprint of another scheme is known for what it is. Raises OSError.
    """
    files = weight_files(model_directory(str(path)), config)
    digest = hashlib.sha256(json.dumps(_structure(model, config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(_canonical(stored_tensors(files), model).items()):
        digest.update(json.dumps([name, *tensor]).encode())
    return _SCHEME + digest.hexdigest()[:32]


def of_this_scheme(fingerprint: str) -> bool:
    """Whether a fingerprint was made as :func:`model_fingerprint` makes them, so that the two can be compared."""
    return fingerprint.startswith(_SCHEME)


def _structure(model: Any, config: Any) -> dict[str, Any]:
    """What the configuration says beyond its class's defaults: fields that a later version adds do not show in it."""
    fields: dict[str, Any] = config.to_dict()
    defaults: dict[str, Any] = _defaults(type(config))
    own = {
        name: value
        for name, value in fields.items()
        if not _UNSTRUCTURED.fullmatch(name) and (name not in defaults or value != defaults[name])
    }
    return own | {"model_type": config.model_type, "class": type(model).__name__}


def _defaults(kind: Any) -> dict[str, Any]:
    try:
        return dict(kind().to_dict())
    except Exception:  # a class without defaults: every field counts
        return {}


def _canonical(stored: dict[str, StoredTensor], model: Any) -> dict[str, StoredTensor]:
    """The stored tensors under the model's own names, each shared one once, without what is no weight."""
    named = {name for name, _ in model.named_parameters(remove_duplicate=False)} | dict(model.named_buffers()).keys()
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    found = {}
    for name, tensor in stored.items():
        own = _own_name(name, named, model.base_model_prefix)
        if own in named or not (_NO_WEIGHTS.search(own) or any(pattern.search(own) for pattern in ignored)):
            found[own] = tensor
    for sharing, source in (model.all_tied_weights_keys or {}).items():
        # Where both are stored and differ, transformers does not share them, and both count.
        if sharing in found and found.get(source, found[sharing]) == found[sharing]:
            found[source] = found.pop(sharing)
    return found


def _own_name(name: str, named: set[str], prefix: str) -> str:
    """With or without the prefix of the headless model, as the model has it."""
    if name not in named:
        if f"{prefix}.{name}" in named:
            return f"{prefix}.{name}"
        if name.removeprefix(f"{prefix}.") in named:
            return name.removeprefix(f"{prefix}.")
    return name
