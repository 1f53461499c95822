"""Adapters of a model that several ranks compute together: which can be divided, and each rank's part."""

from __future__ import annotations

from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.decoder.adaptable_layers import AdaptableLinear
from ift_serve.modeling.decoder.shard import Shard
from ift_serve.modeling.multi_adapter.prepared import Factors, PreparedAdapter

_BESIDE_LAYERS = (
    "instruction_encoder", "temperature_head", "sequence_temperature", "mode_classifier", "adherence_head",
)  # fmt: skip
"""Components that look at embeddings or at whole hidden states, and change neither."""
_WHY = "is not served with tensor_parallel, where each rank has a part of the layers"


def check_divides(weights: AdapterWeights, embedding_path: str, head_path: str, *, head_is_last: bool) -> None:
    """Raise AdapterError, by name, for what ranks cannot each compute their part of.

    Low-rank changes of linear layers divide as those do; heads look at whole hidden states, which rank 0 has.
    head_is_last: whether logits are the head's products as they are.
    """
    for path, module in weights.lora.items():
        if module.magnitude is not None:
            raise AdapterError(f"{path}: DoRA {_WHY}")
    changed = [*weights.lora, *(name.removesuffix(".weight") for name in weights.replaced), *weights.token_rows]
    if embedding_path in changed:
        raise AdapterError(f"{embedding_path}: a change of the token embeddings {_WHY}")
    if head_path in changed and not head_is_last:
        raise AdapterError(f"{head_path}: a change of a head whose products are scaled or capped {_WHY}")
    for name in weights.components.names:
        if name not in _BESIDE_LAYERS:
            raise AdapterError(f"{name}: a component within the layers {_WHY}")


def divided_linears(
    prepared: PreparedAdapter, adaptable: list[AdaptableLinear], shard: Shard, rank: int
) -> list[list[Factors | None]]:
    """A rank's part of the factors of every adaptable linear: columns of B where the layer's outputs are divided,
    columns of A where its inputs are, so that the changes add up with the products that they change."""
    return [
        [None if own is None else _part(own, path, shard, rank) for own, path in zip(parts, linear.paths, strict=True)]
        for parts, linear in zip(prepared.linears, adaptable, strict=True)
    ]


def _part(factors: Factors, path: str, shard: Shard, rank: int) -> Factors:
    if path in shard.divided:
        return Factors(factors.a, factors.b.chunk(shard.size, dim=1)[rank].contiguous(), factors.scale)
    if path in shard.summed:
        return Factors(factors.a.chunk(shard.size, dim=1)[rank].contiguous(), factors.b, factors.scale)
    return factors
