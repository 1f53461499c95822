"""The same requests to a model in training, again and again, and its answers as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.decoder.model_loader import model_ends
from ift_serve.text.ends import answer_ends
from ift_training.data.encode import Encoder
from ift_training.data.records import Record
from ift_training.evaluation.answers import greedy


class Answerer:
    """Greedy answers to the prompts of some records, which end where an answer ends when the adapter is served."""

    def __init__(self, records: Sequence[Record], encoder: Encoder, *, max_new_tokens: int, batch_size: int) -> None:
        self.prompts = [encoder.renderer.conversation(record.prompt) for record in records]
        self._encoder = encoder
        self._limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}

    def texts(self, model: Any, components: InstructionComponents | None) -> list[str]:
        """The answer to each prompt. The model is in evaluation mode meanwhile."""
        training = model.training
        model.eval()
        try:
            answers = greedy(model, components, self.prompts, self._ends(model), **self._limits)
        finally:
            model.train(training)
        decode = self._encoder.renderer.encoder.backend.decode
        return [str(decode(ids, skip_special_tokens=True)) for ids in answers]

    def _ends(self, model: Any) -> frozenset[int]:
        config = model.config.get_text_config(decoder=True)
        return frozenset([*answer_ends(self._encoder.renderer), *model_ends(model, config)])
