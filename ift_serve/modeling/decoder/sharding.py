"""Takes one rank's part of a loaded model, by the plan that transformers has for its class."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ift_serve.modeling.decoder.flat_batch import LayerGeometry
from ift_serve.modeling.decoder.model_loader import LoadedModel, UnsupportedModelError
from ift_serve.modeling.decoder.shard import Shard

_COLUMNS, _ROWS = "colwise", "rowwise"
_HEAD = ("colwise_gather_output", "colwise_rep")
_WHOLE = ("replicated_with_grad_allreduce", "replicate", "embedding_rowwise", "embedding_colwise")
"""Kinds that every rank may keep whole: norms of a head each, and embeddings, which are read by rows."""


def check_shards(loaded: LoadedModel, size: int) -> None:
    """Raise UnsupportedModelError, naming what, where a model does not divide among ``size`` ranks."""
    _styles(loaded, size)


@torch.inference_mode()
def take_shard(loaded: LoadedModel, rank: int, size: int, group: Any = None) -> LoadedModel:
    """This rank's part of a model, whose modules are cut in place: heads, inner widths, columns of the head.

    The embeddings, and linear layers that the plan does not name, stay whole on every rank. The result has this rank's
    geometry and its ``shard``. Raises UnsupportedModelError as :func:`check_shards`.
    """
    styles = _styles(loaded, size)
    model: Any = loaded.model
    head = model.get_output_embeddings()
    summed, divided, columns = set(), set(), 0
    for path, style in styles.items():
        module = model.get_submodule(path)
        if module is head:
            columns = int(module.weight.shape[0])
            _cut_head(module, rank, size)
        elif style == _COLUMNS:
            divided.add(path)
            _cut_outputs(module, rank, size)
        else:
            summed.add(path)
            _cut_inputs(module, rank, size)
    shard = Shard(rank, size, group, frozenset(summed), frozenset(divided), columns)
    return replace(loaded, geometry=[_part(layer, size) for layer in loaded.geometry], shard=shard)


def _styles(loaded: LoadedModel, size: int) -> dict[str, str]:
    """How each linear layer that is divided is, by its path."""
    model: Any = loaded.model
    found = _planned(loaded)
    for index, layer in enumerate(loaded.geometry):
        for count, what in ((layer.heads, "attention heads"), (layer.kv_heads, "key-value heads")):
            if count % size:
                raise _refused(loaded, f"the {count} {what} of layer {index} do not divide among {size}")
    for path, style in found.items():
        module = model.get_submodule(path)
        width = module.out_features if style == _COLUMNS else module.in_features
        if module is not model.get_output_embeddings() and width % size:
            raise _refused(loaded, f"the {width} {_SIDES[style]} of {path} do not divide among {size}")
    return found


def _planned(loaded: LoadedModel) -> dict[str, str]:
    """Styles by path, all of which are done here."""
    model: Any = loaded.model
    plan: dict[str, str] = dict(getattr(model, "tp_plan", None) or {})
    if not any("*" in path for path in plan):
        raise _refused(loaded, f"transformers has no tensor-parallel plan for {loaded.architecture}")
    if loaded.quantized:
        raise _refused(loaded, f"weights of {loaded.weights} are not divided")
    head = model.get_output_embeddings()
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        entry = re.sub(r"\b\d+\b", "*", path)
        style = plan.get(entry)
        if style is None or style in _WHOLE:
            continue
        known = (*_HEAD, _COLUMNS) if module is head else (_COLUMNS, _ROWS)
        if style not in known or type(module) is not nn.Linear:
            raise _refused(loaded, f"the plan of {loaded.architecture} divides {entry} as {style}, which is not done")
        found[path] = style
    return found


_SIDES = {_COLUMNS: "outputs", _ROWS: "inputs"}


def _refused(loaded: LoadedModel, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{loaded.name}: tensor_parallel: {why}; choose another number, or serve it in one process"
    )


def _part(layer: LayerGeometry, size: int) -> LayerGeometry:
    return replace(layer, heads=layer.heads // size, kv_heads=layer.kv_heads // size)


def _own(tensor: Tensor) -> nn.Parameter:
    """In new memory, so that the whole is freed."""
    return nn.Parameter(tensor.clone(memory_format=torch.contiguous_format), requires_grad=False)


def _cut_outputs(module: Any, rank: int, size: int) -> None:
    module.weight = _own(module.weight.chunk(size)[rank])
    if module.bias is not None:
        module.bias = _own(module.bias.chunk(size)[rank])
    module.out_features = module.weight.shape[0]


def _cut_inputs(module: Any, rank: int, size: int) -> None:
    module.weight = _own(module.weight.chunk(size, dim=1)[rank])
    if rank:  # the first rank adds it
        module.bias = None
    module.in_features = module.weight.shape[1]


def _cut_head(module: Any, rank: int, size: int) -> None:
    count = -(-module.weight.shape[0] // size)
    module.weight = _own(_rows(module.weight, rank * count, count))
    if module.bias is not None:
        module.bias = _own(_rows(module.bias, rank * count, count))
    module.out_features = count


def _rows(tensor: Tensor, first: int, count: int) -> Tensor:
    """``count`` rows from ``first`` on, zeros past the end."""
    rows = tensor[first : first + count]
    return pad(rows, (*([0, 0] * (tensor.ndim - 1)), 0, count - len(rows)))
