"""The tail of a causal language model: from the backbone's hidden states to its logits."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from ift_serve.modeling.decoder.hooks import backbone_of

_SCALES = (0.5, 4.0)
_ROWS = 3
_LONGEST_CAUSE = 160


class _BackboneOutput(BaseModelOutputWithPast):  # type: ignore[misc]
    """A backbone's output of any kind: fields that only some models have are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _GivenHiddenStates(nn.Module):
    """Stands where the backbone was and returns what the model was given as embeddings."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.__dict__["_backbone"] = backbone  # no child: its weights stay where they were

    def __getattr__(self, name: str) -> Any:
        """Models read numbers off their backbones, such as a multiplier of the logits."""
        value = getattr(self.__dict__["_backbone"], name)
        if isinstance(value, nn.Module):
            raise AttributeError(f"{name} is a part of the backbone, which is left out")
        return value

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _BackboneOutput:
        return _BackboneOutput(last_hidden_state=inputs_embeds)


def _with_module(module: Any, path: list[str], replacement: nn.Module) -> Any:
    """A copy of ``module`` with another module at ``path`` below it. Everything else is shared."""
    copied = copy.copy(module)
    child = replacement if len(path) == 1 else _with_module(module._modules[path[0]], path[1:], replacement)
    copied._modules = {**module._modules, path[0]: child}
    return copied


def _path(model: nn.Module, wanted: nn.Module | None) -> list[str]:
    return next((path.split(".") for path, module in model.named_modules() if module is wanted and path), [])


@dataclass(frozen=True, slots=True)
class TailKind:
    """``is_product``: logits are the head's product of the hidden states. ``splits``: they are a function of it."""

    is_product: bool
    splits: bool


class ModelTail:
    """Runs the model's own forward pass with its backbone left out, so that nothing is known here of any model.

    Most models only multiply by their head there (``is_product``). Of others it matters where they differ: adapters
    change the head's product of the hidden states, so what comes before the head must be nothing (``splits``).
    """

    def __init__(self, model: Any) -> None:
        """Raises ValueError where the backbone cannot be left out."""
        self._model = model
        backbone = model.base_model if _path(model, model.base_model) else backbone_of(model)
        self._headless = _with_module(model, _path(model, backbone), _GivenHiddenStates(backbone))
        self._after_head: Any = None
        head = _path(model, model.get_output_embeddings())
        if len(head) == 1:
            self._after_head = _with_module(self._headless, head, nn.Identity())

    @torch.no_grad()
    def recognise(self) -> TailKind:
        """Find out by trying what this tail consists of. Raises ValueError where it does not run by itself."""
        weight = self._model.get_input_embeddings().weight
        width = int(self._model.config.get_text_config(decoder=True).hidden_size)
        noise = torch.randn(_ROWS, width, generator=torch.Generator().manual_seed(1))
        rows = [(noise * scale).to(device=weight.device, dtype=weight.dtype) for scale in _SCALES]
        try:
            own = [self.logits(hidden) for hidden in rows]
        except Exception as error:  # whatever a class does after its backbone
            raise ValueError(
                f"what {type(self._model).__name__} computes after its last layer needs more than hidden states "
                f"({type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_CAUSE]})"
            ) from error
        if self._after_head is None:
            return TailKind(is_product=False, splits=False)
        products = [self.head(hidden) for hidden in rows]
        is_product = all(map(_equal, own, products))
        try:
            splits = is_product or all(map(_equal, own, [self.finish(p) for p in products]))
        except Exception:  # whatever a class does to a head that it does not expect
            splits = False
        return TailKind(is_product=is_product, splits=splits)

    def logits(self, hidden: Tensor) -> Tensor:
        """``[R, d]`` -> ``[R, V]``, by the model's own code."""
        return self._run(self._headless, hidden)

    def head(self, hidden: Tensor) -> Tensor:
        """``[R, d]`` -> ``[R, V]``: the head's product alone."""
        products: Tensor = self._model.get_output_embeddings()(hidden)
        return products

    def finish(self, products: Tensor) -> Tensor:
        """``[R, V]`` -> ``[R, V]``: what the model does to its head's products. Only where the tail ``splits``."""
        return self._run(self._after_head, products)

    @staticmethod
    def _run(model: Any, states: Tensor) -> Tensor:
        # ``forward`` and not a call: hooks on the model, such as those of sharding, belong to whole passes.
        logits: Tensor = model.forward(inputs_embeds=states[None], use_cache=False).logits
        if logits.shape[:2] != (1, states.shape[0]):
            raise ValueError(f"{type(model).__name__} gives logits {tuple(logits.shape)} for its hidden states")
        return logits[0]


def _equal(own: Tensor, rebuilt: Tensor) -> bool:
    return own.shape == rebuilt.shape and torch.equal(own.float(), rebuilt.float())
