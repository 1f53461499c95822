"""The base model and its adapters as models."""

from __future__ import annotations

from typing import Any

from ift_serve.client import Adapter, AsyncClient, ModelInfo, ServerError
from ift_serve.gateway.errors import ApiError, of_server

_ANSWERING = ("ready", "evicted", "returning")


async def model_list(client: AsyncClient, model: ModelInfo) -> dict[str, Any]:
    """All models that the caller may know of: who has not the role admin sees the base alone. Raises ApiError."""
    try:
        adapters = await client.adapters()
    except ServerError as error:
        if error.code != "PERMISSION_DENIED":
            raise of_server(error, {}) from None
        return {"object": "list", "data": [_base(model)], "ift": {"adapters": "are shown to the role admin"}}
    answering = [adapter for adapter in adapters if adapter.state in _ANSWERING]
    newest = {adapter.name: adapter for adapter in reversed(answering)}
    listed = [_adapter(newest[name], model, name) for name in sorted(newest)]
    return {"object": "list", "data": [_base(model), *listed]}


async def one_model(client: AsyncClient, model: ModelInfo, name: str) -> dict[str, Any]:
    """A model by its name. Raises ApiError."""
    if name == model.name:
        return _base(model)
    try:
        return _adapter(await client.adapter(name), model, name)
    except ServerError as error:
        raise of_server(error, {"name": "model"}) from None
    except ValueError as error:
        raise ApiError(404, str(error), "model", "model_not_found") from None


def _base(model: ModelInfo) -> dict[str, Any]:
    told = {
        "context_length": model.context_length,
        "limits": model.limits,
        "features": list(model.features),
        "sampling_defaults": {k: v for k, v in model.sampling_defaults.items() if isinstance(v, int | float)},
        "thought_markers": list(model.thought_markers) if model.thought_markers else None,
        "version": model.version,
    }
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "ift-serve", "ift": told}


def _adapter(adapter: Adapter, model: ModelInfo, name: str) -> dict[str, Any]:
    told = {
        "version": adapter.version,
        "state": adapter.state,
        "components": list(adapter.components),
        "rank": adapter.rank,
    }
    return {"id": name, "object": "model", "created": 0, "owned_by": "ift-serve", "parent": model.name, "ift": told}
