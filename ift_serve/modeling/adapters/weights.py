"""An adapter in memory, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ift_serve.modeling.adapters.config import IftConfig
    from ift_serve.modeling.instruction.config import ComponentsConfig


class AdapterError(Exception):
    """An adapter cannot be used. The message names the file and the tensor or field, and says what to do."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """``W x + scale B A x``: a ``[r, K]``, b ``[N, r]``; magnitude ``[N]`` where the weight is decomposed (DoRA)."""

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(slots=True)
class AdapterWeights:
    """Everything an adapter directory holds.

    version: first 16 hex digits of the SHA-256 of its files. rank: the largest. lora: by module path in the base
    model. replaced: full tensors by parameter path (``modules_to_save``). token_rows: trainable tokens by module path,
    ids ``[n]`` ascending and the rows ``[n, d]`` that stand in place of the base model's. extras: the state of the
    components. bytes: memory of all tensors.
    """

    version: str
    rank: int
    lora: dict[str, LoraModule]
    replaced: dict[str, Tensor]
    token_rows: dict[str, tuple[Tensor, Tensor]]
    components: ComponentsConfig
    extras: dict[str, Tensor] = field(default_factory=dict)
    config: IftConfig | None = None
    bytes: int = 0
