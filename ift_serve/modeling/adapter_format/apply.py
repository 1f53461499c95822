"""Reference for an adapter's LoRA part, in plain PyTorch: the definition that serving is held to.

The instruction-aware components are not applied here; see ``ift_serve.modeling.components``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule


def lora_delta(module: LoraModule, inputs: Tensor) -> Tensor:
    """``scale B A x``: inputs ``[..., K]`` -> ``[..., N]``, in the inputs' dtype (Hu et al. 2021, arXiv:2106.09685)."""
    shrunk = linear(inputs, module.a.to(inputs))
    return linear(shrunk, module.b.to(inputs)) * module.scale


def embedding_delta(module: LoraModule, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """``scale B A[:, id]``: ids ``[...]`` -> ``[..., d]``, before any scale that the embedding layer has itself."""
    shrunk: Tensor = embedding(ids, module.a.T.to(dtype))
    return linear(shrunk, module.b.to(dtype)) * module.scale


def magnitude_ratio(module: LoraModule, weight: Tensor, *, embeddings: bool = False) -> Tensor:
    """``m / |W + scale B A|`` of each output ``[N]``: DoRA's factor (Liu et al. 2024, arXiv:2402.09353, eq. 5).

    weight: the base layer's, ``[N, K]``, or ``[V, d]`` of embeddings.
    """
    assert module.magnitude is not None
    base = weight.T if embeddings else weight
    changed = base + module.scale * (module.b.to(weight) @ module.a.to(weight))
    norm: Tensor = torch.linalg.norm(changed, dim=1)
    return module.magnitude.to(weight) / norm.to(weight.dtype)


class AdaptedLinear(nn.Module):
    """``W x + b + scale B A x``, the weight's part decomposed where there is a magnitude."""

    def __init__(self, inner: nn.Linear, module: LoraModule) -> None:
        super().__init__()
        self.inner = inner
        self._module = module

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., K] -> [..., N]``."""
        module, inner = self._module, self.inner
        if module.magnitude is None:
            output: Tensor = inner(inputs)
            return output + lora_delta(module, inputs)
        ratio = magnitude_ratio(module, inner.weight)
        changed = ratio * (linear(inputs, inner.weight) + lora_delta(module, inputs))
        return changed if inner.bias is None else changed + inner.bias


class AdaptedEmbedding(nn.Module):
    """Token embeddings with LoRA on their table; models that scale their embeddings scale the change as well."""

    def __init__(self, inner: Any, module: LoraModule) -> None:
        super().__init__()
        self.inner = inner
        self.weight = inner.weight
        self._module = module

    def forward(self, ids: Tensor) -> Tensor:
        """``[...] -> [..., d]``."""
        module, inner = self._module, self.inner
        result: Tensor = inner(ids)
        delta = embedding_delta(module, ids, result.dtype)
        if (scale := getattr(inner, "embed_scale", None)) is not None:
            delta = delta * scale.to(result.dtype)
        if module.magnitude is None:
            return result + delta
        return magnitude_ratio(module, inner.weight, embeddings=True) * (result + delta)


def merged_reference(model: nn.Module, weights: AdapterWeights) -> nn.Module:
    """A copy of a transformers model that computes with the adapter; the model itself is left alone.

    First whole weights are replaced, then rows of tokens, then LoRA is added.
    """
    model = copy.deepcopy(model)
    for path, tensor in weights.replaced.items():
        _set_parameter(model, path, tensor)
    for path, (ids, rows) in weights.token_rows.items():
        table: Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
        _set_parameter(model, f"{path}.weight", table.index_copy(0, ids, rows.to(table)))
    for path, module in weights.lora.items():
        inner = model.get_submodule(path)
        adapted = AdaptedLinear(inner, module) if isinstance(inner, nn.Linear) else AdaptedEmbedding(inner, module)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, adapted)
    return model


def _set_parameter(model: nn.Module, path: str, tensor: Tensor) -> None:
    """In place of the parameter at this path only: one that it was tied to keeps its value."""
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    before: Tensor = getattr(module, name)
    setattr(module, name, nn.Parameter(tensor.detach().to(before), requires_grad=False))
