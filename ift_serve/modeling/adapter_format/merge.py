"""An adapter's low-rank part added into its base model's weights, for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule
from ift_serve.modeling.multi_adapter.magnitudes import magnitude_ratio

Progress = Callable[[str], None]


@torch.no_grad()
def merge_into(model: Any, weights: AdapterWeights, progress: Progress | None = None) -> None:
    """Change the model's weights in place, each computed in float32 and rounded once to the weight's dtype.

    First whole weights are replaced, then rows of tokens, then the low-rank changes are added. Embeddings and a head
    that share one weight no longer do where the adapter changes one of them. Components are not merged. Raises
    AdapterError, naming the weight, when a value leaves the dtype's range.
    """
    _untie(model, weights)
    for path, tensor in weights.replaced.items():
        owner, _, name = path.rpartition(".")
        _store(getattr(model.get_submodule(owner), name), tensor, path)
    for path, (ids, rows) in weights.token_rows.items():
        table = model.get_submodule(path).weight
        _store(table, table.index_copy(0, ids, rows.to(table)), path)
    for path, module in weights.lora.items():
        _add(model.get_submodule(path), module, path)
        if progress is not None:
            progress(path)


def _add(layer: nn.Module, module: LoraModule, path: str) -> None:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    embeddings = not isinstance(layer, nn.Linear)
    base = weight.float().T if embeddings else weight.float()
    merged = base + (module.b.float() @ module.a.float()) * module.scale
    if module.magnitude is not None:
        merged = merged * magnitude_ratio(module.magnitude, base, module.a, module.b, module.scale)[:, None]
    _store(weight, merged.T if embeddings else merged, path)


def _store(weight: Tensor, value: Tensor, path: str) -> None:
    weight.copy_(value)
    if not torch.isfinite(weight).all():
        raise AdapterError(f"{path}: a merged value is too large for {str(weight.dtype).removeprefix('torch.')}")


def _untie(model: Any, weights: AdapterWeights) -> None:
    """Give the head a weight of its own where it shares the embeddings' and the adapter changes either."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    places = {id(module): path for path, module in model.named_modules()}
    shared = {places[id(embeddings)], places[id(head)]}
    changed = {*weights.lora, *weights.token_rows, *(path.rpartition(".")[0] for path in weights.replaced)}
    if shared & changed:
        head.weight = nn.Parameter(embeddings.weight.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config(decoder=True)):
            config.tie_word_embeddings = False
