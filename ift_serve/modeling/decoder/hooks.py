"""Attaches the components to a transformers decoder, without subclassing it.

The batch travels as the keyword ``batch`` through the model's own forward, where these hooks find it: nothing is
ambient, so gradient checkpointing recomputes the same thing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_LAYERS = ("layers", "h", "blocks")


def _layers(backbone: Any) -> list[nn.Module] | None:
    return next((list(found) for name in _LAYERS if (found := getattr(backbone, name, None)) is not None), None)


def backbone_of(model: Any) -> Any:
    """The module whose layers text passes through: the model without its head, and without vision or audio towers.

    Raises ValueError when the layers cannot be found.
    """
    named = [getattr(model, name, None) for name in ("model", "transformer")]
    for candidate in (model.base_model, model.get_decoder(), *named):
        if candidate is not model and candidate is not None and _layers(candidate) is not None:
            return candidate
    raise ValueError(f"the decoder layers of {type(model).__name__} are not where they usually are")


def _enter(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    adaptation = kwargs["batch"].adaptation if "batch" in kwargs else None
    ids = args[0] if args else kwargs.get("input_ids")
    if adaptation is None or ids is None:
        return None
    embeddings: Tensor = backbone.get_input_embeddings()(ids)
    changed = adaptation.embed(embeddings.reshape(-1, embeddings.shape[-1]))
    given = {**kwargs, "inputs_embeds": changed.view(embeddings.shape)}
    return ((None, *args[1:]), given) if args else (args, {**given, "input_ids": None})


def _leave_layer(index: int) -> Any:
    def hook(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        adaptation = kwargs["batch"].adaptation if "batch" in kwargs else None
        if adaptation is None or not adaptation.changes_layers:
            return output
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        changed = adaptation.after_layer(index, hidden.reshape(-1, hidden.shape[-1])).view(hidden.shape)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def _leave(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    adaptation = kwargs["batch"].adaptation if "batch" in kwargs else None
    if adaptation is not None:
        hidden: Tensor = output.last_hidden_state
        changed = adaptation.before_head(hidden.reshape(-1, hidden.shape[-1])).view(hidden.shape)
        output.last_hidden_state = changed
    return output


def attach(model: Any) -> list[RemovableHandle]:
    """Have ``model(..., batch=batch)`` apply ``batch.adaptation``. The handles take it off again.

    Attention itself (bias and gain) is the batch's; see ``modeling.decoder.attention``. Raises ValueError when the
    layers of the decoder cannot be found.
    """
    backbone = backbone_of(model)
    handles = [backbone.register_forward_pre_hook(_enter, with_kwargs=True)]
    handles += [
        layer.register_forward_hook(_leave_layer(index), with_kwargs=True)
        for index, layer in enumerate(_layers(backbone) or ())
    ]
    handles.append(backbone.register_forward_hook(_leave, with_kwargs=True))
    return handles
