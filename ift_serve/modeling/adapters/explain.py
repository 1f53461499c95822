"""What an adapter is, for people and for programs."""

from __future__ import annotations

from typing import Any

from ift_serve.modeling.adapters.weights import AdapterWeights


def explain(weights: AdapterWeights) -> dict[str, Any]:
    """A summary that JSON can hold."""
    own = weights.config
    ranks = sorted({module.a.shape[0] for module in weights.lora.values()})
    kinds = sorted({path.rsplit(".", 1)[-1] for path in weights.lora})
    return {
        "version": weights.version,
        "bytes": weights.bytes,
        "lora": {"modules": len(weights.lora), "kinds": kinds, "ranks": ranks,
                 "dora": any(m.magnitude is not None for m in weights.lora.values())},
        "modules_to_save": sorted(weights.replaced),
        "trainable_tokens": {path: len(ids) for path, (ids, _) in weights.token_rows.items()},
        "components": {name: getattr(weights.components, name) for name in weights.components.names},
        "component_parameters": sum(t.numel() for t in weights.extras.values()),
        "base": None if own is None else own.base.model_dump(mode="json"),
        "scores": {} if own is None else own.scores,
    }  # fmt: skip
