"""Weights of a loaded model in 8 or 4 bits: which are, in what form, and what the model computes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ift_kernels.quantize_weight import quantize_weight
from ift_kernels.quantized_linear import QuantizedWeight, round_inputs
from ift_serve.modeling.decoder.device_weights import DeviceWeight, device_weight

BITS = {"int8": 8, "int4": 4}
"""Bits of the layers' weights by the name of the choice; head and embeddings always have 8."""
_HEAD_BITS = 8


class QuantizedWeights:
    """The quantized weights of a model by the module whose they are. Taken out by the decoder that packs them."""

    def __init__(self) -> None:
        self._of_module: dict[nn.Module, QuantizedWeight | DeviceWeight] = {}
        self.plain: list[str] = []
        """Paths of linear layers that stay as they are stored: their shape fits no panel or no group."""

    def __bool__(self) -> bool:
        return bool(self._of_module)

    def get(self, module: nn.Module) -> QuantizedWeight | DeviceWeight | None:
        """Of a module; None where its weight is not quantized."""
        return self._of_module.get(module)

    def packed(self, module: nn.Module) -> QuantizedWeight | None:
        """Of a module that the CPU's kernels compute."""
        found = self._of_module.get(module)
        return found if isinstance(found, QuantizedWeight) else None

    def put(self, module: Any, weight: DeviceWeight) -> None:
        """Make it the module's: from here on its plain weight is what the quantized one stands for."""
        module.weight.data = weight.dense().to(module.weight.dtype)
        self.keep(module, weight)

    def keep(self, module: nn.Module, weight: QuantizedWeight | DeviceWeight) -> None:
        """The same for a module whose plain weight is that already."""
        self._of_module[module] = weight

    def clear(self) -> None:
        """Forget the modules, which a decoder has taken apart."""
        self._of_module.clear()

    @contextmanager
    def rounding_inputs(self) -> Iterator[None]:
        """Within it the modules round their inputs as the quantized product does: the model defines what is served.

        The CPU's product does; those on a GPU take inputs as they are.
        """

        def round_off(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            return (round_inputs(rows).view_as(inputs[0]).to(inputs[0].dtype), *inputs[1:])

        rounds = [module for module, weight in self._of_module.items() if isinstance(weight, QuantizedWeight)]
        linears = [module for module in rounds if isinstance(module, nn.Linear)]
        handles = [module.register_forward_pre_hook(round_off) for module in linears]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@torch.inference_mode()
def quantize_model(model: Any, choice: str) -> QuantizedWeights:
    """Round every linear layer of a model to the bits of ``choice``, its head and token embeddings to 8.

    choice: ``int8`` or ``int4``. The model's own weights become what the rounded ones stand for.
    """
    found = QuantizedWeights()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for path, module in model.named_modules():
        if type(module) is not nn.Linear and module is not embeddings:
            continue
        if module is head and head.weight is embeddings.weight:
            continue
        bits = _HEAD_BITS if module is head or module is embeddings else BITS[choice]
        weight = quantize_weight(module.weight, bits, in_place=True)
        if weight is None:
            found.plain.append(path)
            continue
        shared = module is embeddings and head is not None and head.weight is embeddings.weight
        found.keep(module, weight)
        if shared and type(head) is nn.Linear:
            found.keep(head, weight)
    return found


@torch.inference_mode()
def quantize_on_device(model: Any, choice: str) -> QuantizedWeights:
    """The same by torchao, for a model on a GPU; token embeddings stay as they are.

    The model's own weights become what the rounded ones stand for. A head that shares its weight with the embeddings
    gets one of its own.
    """
    found = QuantizedWeights()
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        if type(module) is not nn.Linear:
            continue
        weight = device_weight(module, _HEAD_BITS if module is head else BITS[choice])
        if weight is None:
            found.plain.append(path)
            continue
        if module is head:
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
        found.put(module, weight)
    return found
