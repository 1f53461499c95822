"""What an adapter is checked against: the names and shapes of its base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ift_serve.modeling.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base model without its weights.

    shapes: of every parameter, by path. linears: paths of linear layers. embedding_path, head_path: of the token
    embeddings and the language head. tied: whether those share their weight. heads: attention heads of a layer.
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

    @classmethod
    def of_model(cls, loaded: LoadedModel) -> BaseFacts:
        """Of a model in memory; before a decoder takes its layers."""
        return _facts(loaded.model, loaded.config, loaded.fingerprint)

    @classmethod
    def of_directory(cls, path: Path) -> BaseFacts:
        """Of a model directory; builds the model without memory for its weights."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from ift_serve.modeling.loading import model_fingerprint

        config = AutoConfig.from_pretrained(str(path), local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        return _facts(model, config.get_text_config(decoder=True), model_fingerprint(path, config))


def _path_of(model: Any, wanted: Any) -> str:
    return next((path for path, module in model.named_modules() if module is wanted), "")


def _facts(model: Any, config: Any, fingerprint: str) -> BaseFacts:
    from torch import nn

    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    return BaseFacts(
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
        tied=bool(getattr(config, "tie_word_embeddings", False)),
    )
