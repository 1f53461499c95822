"""Refuses adapters whose values are finite and so large that what is computed with them is not.

An overflow does not always show: a normalisation makes zeros of it, a cap makes it a logit like any other, a saturated
softmax hides its size. So the sizes are bounded before anything is computed. The bounds lie a thousandfold above what
training gives, and so low that a chain of products between two normalisations keeps its squares within float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.multi_adapter.prepared import Factors, PreparedAdapter

_LEAST_GAIN, _GAIN = 1e4, 4.0
"""|scale| |A| |B| of a layer of K inputs and N outputs is at most the larger of the first and the second times
sqrt(K N): a change of the layer whose entries are of the size 4, where a base model's are of the size 0.02."""
_FACTOR = 1e12
_VALUE = 1e4
"""What a single value of any other tensor may be: rows of embeddings and head, parameters of components."""


def check_sizes(prepared: PreparedAdapter, paths: list[tuple[str, ...]], head: str, embedding: str) -> None:
    """Raise AdapterError, naming the module or tensor, where a product or a value is out of all proportion.

    paths: of the parts of each adaptable linear, as ``prepared.linears`` has them.
    """
    for parts, factors in zip(paths, prepared.linears, strict=True):
        for path, own in zip(parts, factors, strict=True):
            if own is not None:
                _check_factors(path, own, _size(own.a))
    if prepared.head is not None:
        _check_factors(head, prepared.head, _size(prepared.head.a))
    if prepared.embedding is not None:
        rows = prepared.embedding.a.double().norm(dim=1).max()  # one row of A at a time is used
        _check_factors(embedding, prepared.embedding, float(rows))
    for name, tensor in prepared.tensors():
        if not name.endswith((", A", ", B")) and tensor.is_floating_point() and tensor.numel():
            largest = float(tensor.abs().max())
            if largest > _VALUE:
                raise AdapterError(
                    f"{quoted(name)}: a value of {largest:.3g}; above {_VALUE:g} what is computed with it overflows or "
                    "loses its digits"
                )


def _size(tensor: Tensor) -> float:
    """The Frobenius norm, which bounds how much longer a vector becomes."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _check_factors(path: str, factors: Factors, size: float) -> None:
    gain = abs(factors.scale) * size * _size(factors.b)
    inputs, outputs = factors.a.shape[1], factors.b.shape[1]
    most = max(_LEAST_GAIN, _GAIN * (inputs * outputs) ** 0.5)
    if gain > most or max(size, _size(factors.b)) > _FACTOR:
        raise AdapterError(
            f"{path}: its LoRA factors, of sizes {size:.3g} and {_size(factors.b):.3g} with the scale "
            f"{factors.scale:.3g}, change the layer out of all proportion (at most {most:.3g} together): what is "
            "computed with them overflows or loses its digits"
        )
