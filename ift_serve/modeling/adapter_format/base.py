"""Base metadata: the names and shapes that an adapter is checked against."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_serve.modeling.components.config import BaseShape

if TYPE_CHECKING:
    from torch import Tensor

    from ift_serve.modeling.decoder.model_loader import LoadedModel


def _unknown(path: str) -> Tensor | None:
    return None


@dataclass(frozen=True)
class BaseMetadata:
    """A base model without its weights.

    shapes: of every parameter, by path. linears: paths of linear layers. embedding_path, head_path: of the token
    embeddings and the language head. tied: whether those share their weight once loaded, which they do not where the
    files hold two that differ, whatever the configuration says. tied_by_name: whether the configuration says so, which
    is what PEFT goes by. heads: attention heads of a layer.
    stored_weight: the weight at a parameter path where it can still be looked at (embeddings and head), else None.
    """

    fingerprint: str
    architecture: str
    hidden_size: int
    layers: int
    heads: int
    vocabulary_size: int
    shapes: dict[str, tuple[int, ...]]
    linears: frozenset[str]
    embedding_path: str
    head_path: str
    tied: bool
    tied_by_name: bool
    stored_weight: Callable[[str], Tensor | None] = field(default=_unknown, compare=False, repr=False)

    @property
    def shape(self) -> BaseShape:
        """The dimensions that components depend on."""
        return BaseShape(
            hidden_size=self.hidden_size, layers=self.layers, heads=self.heads, vocabulary_size=self.vocabulary_size
        )

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Paths of all modules that hold parameters, themselves or below, in the order of the model."""
        found: dict[str, None] = {}
        for name in self.shapes:
            parts = name.split(".")[:-1]
            found.update((".".join(parts[: end + 1]), None) for end in range(len(parts)))
        return tuple(found)

    @classmethod
    def of_model(cls, loaded: LoadedModel) -> BaseMetadata:
        """Of a model in memory; before a decoder takes its layers. Keeps no weight alive."""
        model: Any = loaded.model
        loaded_path, config, prefix, dtype = loaded.path, loaded.config, model.base_model_prefix, loaded.dtype
        kept = {}
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if module is not None:
                kept[f"{_path_of(model, module)}.weight"] = weakref.ref(module.weight)

        rounded = bool(loaded.quantized)

        def stored(path: str) -> Tensor | None:
            if path not in kept:
                return None
            weight = None if rounded else kept[path]()
            if weight is None:  # a decoder that keeps embeddings in fewer bits lets go of the model's own
                weight = _in_files(loaded_path, config, prefix, path)
            return None if weight is None else weight.to(dtype)

        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is not None and head.weight is embeddings.weight
        return _metadata(model, loaded.config, loaded.fingerprint, stored, tied=tied)

    @classmethod
    def of_directory(cls, path: Path) -> BaseMetadata:
        """Of a model directory; its weights are read for the fingerprint only, and only the first time.

        Raises OSError or ValueError where there is no model.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        from ift_serve.modeling.checkpoint.construction import model_construction
        from ift_serve.modeling.checkpoint.fingerprint import model_fingerprint
        from ift_serve.modeling.checkpoint.meta_device import meta_device

        config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        with model_construction, meta_device():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        text_config = config.get_text_config(decoder=True)
        fingerprint = model_fingerprint(path, model, text_config)

        prefix = model.base_model_prefix

        def stored(name: str) -> Tensor | None:
            return _in_files(str(path), text_config, prefix, name)

        tied = _ties(text_config) and not _differ(model, stored)
        return _metadata(model, text_config, fingerprint, stored, tied=tied)


def _in_files(path: str, config: Any, prefix: str, name: str) -> Tensor | None:
    """A weight as the model's files hold it."""
    from ift_serve.modeling.checkpoint.stored_weights import model_directory, stored_weight, weight_files

    files = weight_files(model_directory(path), config)
    found = stored_weight(files, name)
    # Older checkpoints name what is inside the headless model without its prefix.
    return stored_weight(files, name.removeprefix(f"{prefix}.")) if found is None else found


def _path_of(model: Any, wanted: Any) -> str:
    return next((path for path, module in model.named_modules() if module is wanted), "")


def _ties(config: Any) -> bool:
    return bool(getattr(config, "tie_word_embeddings", False))


def _differ(model: Any, stored: Callable[[str], Tensor | None]) -> bool:
    """Whether the files hold a head and embeddings with other values: transformers then does not share them."""
    import torch

    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings, head = (None if m is None else stored(f"{_path_of(model, m)}.weight") for m in modules)
    if embeddings is None or head is None:
        return False
    return embeddings.shape != head.shape or not torch.equal(embeddings.to(head.dtype), head)


def _metadata(
    model: Any, config: Any, fingerprint: str, stored: Callable[[str], Tensor | None], *, tied: bool
) -> BaseMetadata:
    from torch import nn

    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    return BaseMetadata(
        fingerprint=fingerprint,
        architecture=type(model).__name__,
        hidden_size=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        heads=int(config.num_attention_heads),
        vocabulary_size=int(config.vocab_size),
        shapes=shapes,
        linears=frozenset(path for path, module in model.named_modules() if isinstance(module, nn.Linear)),
        embedding_path=_path_of(model, embeddings),
        head_path=_path_of(model, head),
        tied=tied,
        tied_by_name=_ties(config),
        stored_weight=stored,
    )
