"""One adapter over a whole batch, as training uses it."""

from __future__ import annotations

from torch import Tensor

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch


class SoloAdaptation:
    """The :class:`ift_serve.modeling.decoder.flat_batch.Adaptation` of a batch whose every row has the same adapter.

    c is computed from the base embeddings when the first of them come by, unless the tokens bring it.
    """

    def __init__(self, components: InstructionComponents, tokens: TokenBatch) -> None:
        self.components = components
        self.tokens = tokens

    @property
    def changes_layers(self) -> bool:
        """Whether ``after_layer`` does anything."""
        return self.components.instruction_gate is not None

    def embed(self, embeddings: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        if self.tokens.instruction is None:
            self.tokens = self.tokens.with_instruction(self.components.instruction_vector(embeddings, self.tokens))
        return self.components.embed(embeddings, self.tokens)

    def gain(self, layer: int, attended: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        return self.components.gain(layer, attended, self.tokens)

    def after_layer(self, layer: int, hidden: Tensor, delta: Tensor | None = None) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        return self.components.after_layer(layer, hidden if delta is None else hidden + delta, self.tokens)

    def before_head(self, hidden: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        return self.components.before_head(hidden, self.tokens)
