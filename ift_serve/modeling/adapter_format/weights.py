"""An adapter in memory, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ift_serve.modeling.adapter_format.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

    from ift_serve.modeling.adapter_format.config import IftConfig
    from ift_serve.modeling.adapter_format.signing.signed_files import SignedFiles
    from ift_serve.modeling.components.config import ComponentsConfig


@dataclass(frozen=True, slots=True)
class LoraModule:
    """``W x + scale B A x``: a ``[r, K]``, b ``[N, r]``; magnitude ``[N]`` where the weight is decomposed (DoRA).

    Of token embeddings, K is the vocabulary size and N the hidden size: a row of A's transpose for each token.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(slots=True)
class AdapterWeights:
    """Everything an adapter directory holds.

    version: first 16 hex digits of the SHA-256 of its files. rank: the largest. lora: by module path in the base
    model. replaced: full tensors by parameter path (``modules_to_save``, and embeddings that PEFT stored along with
    their LoRA and that differ from the base's); they take the base's place before LoRA is added. token_rows:
    trainable tokens by module path, of the embeddings and of a head that shares their weight or has its own: ids
    ``[n]`` int64 ascending, and the rows ``[n, d]`` that stand in place of the base model's (not differences).
    extras: the state of the components. bytes: memory of all tensors. signed: where a signature was asked for.
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
    signed: SignedFiles | None = None

    def check_served(self) -> None:
        """Raise AdapterError, naming the module, for what this server reads but does not serve."""
        decomposed = [path for path, module in self.lora.items() if module.magnitude is not None]
        if (both := next((path for path in decomposed if path in self.token_rows), None)) is not None:
            raise AdapterError(
                f"{both}: weight decomposition (DoRA) beside trainable tokens of the same layer is not served; "
                "merge it, or train with one of the two"
            )

    def tensors(self) -> dict[int, Tensor]:
        """Every tensor once, by identity: some stand in two places."""
        found = [t for m in self.lora.values() for t in (m.a, m.b, m.magnitude) if t is not None]
        found += [rows for _, rows in self.token_rows.values()]
        found += [*self.replaced.values(), *self.extras.values()]
        return {id(tensor): tensor for tensor in found}
