"""Base model, low-rank part and components as one module whose forward pass computes everything the losses need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ift_serve.modeling.components.adaptation import SoloAdaptation
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.decoder.hooks import attach, backbone_of
from ift_serve.modeling.decoder.tail import ModelTail
from ift_training.losses.instruction import UNJUDGED, instruction_sum
from ift_training.losses.multi_task import TaskBalance
from ift_training.losses.next_token import next_token_sums, targets_of
from ift_training.losses.representation import Projection, representation_sum
from ift_training.model.batch import TrainingBatch, visible_pairs


@dataclass
class TrainingOutput(ModelOutput):  # type: ignore[misc]
    """Sums over the batch: next token ``[K]`` by task, instruction and representation; log-variances ``[K]``."""

    next_token: Tensor | None = None
    instruction: Tensor | None = None
    representation: Tensor | None = None
    log_variances: Tensor | None = None


class InstructionModel(nn.Module):
    """``base`` is transformers' model, with PEFT's layers in it where there is a low-rank part."""

    def __init__(
        self, base: nn.Module, components: InstructionComponents | None, balance: TaskBalance, *, represents: bool
    ) -> None:
        super().__init__()
        self.base = base
        self.components = components
        self.balance = balance
        self.projection: Projection | None = None
        if represents and components is not None:
            self.projection = Projection(components.base.hidden_size, components.config.instruction_encoder)
        attach(self.causal)
        # Made when it is first needed, since layers are wrapped and sharded before that.
        self._tail: ModelTail | None = None

    @property
    def causal(self) -> Any:
        """transformers' causal language model, below PEFT's wrapper."""
        base: Any = self.base
        return base.get_base_model() if hasattr(base, "get_base_model") else base

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the base's layers, each of which is sharded by itself."""
        return list(self.causal._no_split_modules or ())

    def tokens(self, input_ids: Tensor, segments: Tensor, sequence: Tensor, sequences: int) -> TokenBatch:
        """The flat description of a ``[B, L]`` batch."""
        return TokenBatch(input_ids.flatten(), segments.flatten(), sequence.flatten(), sequences)

    def hidden_states(
        self, input_ids: Tensor, positions: Tensor, sequence: Tensor, tokens: TokenBatch
    ) -> tuple[Tensor, TokenBatch]:
        """Hidden states ``[T, d]`` before the head, and the tokens with their instruction vectors."""
        adaptation = None if self.components is None else SoloAdaptation(self.components, tokens)
        batch = TrainingBatch(visible_pairs(sequence), adaptation)
        output = backbone_of(self.causal)(input_ids=input_ids, position_ids=positions, use_cache=False, batch=batch)
        hidden: Tensor = output.last_hidden_state
        return hidden.flatten(0, 1), tokens if adaptation is None else adaptation.tokens

    def logits(self, hidden: Tensor) -> Tensor:
        """``[n, d] -> [n, V]``, by what the model itself computes after its backbone."""
        if self._tail is None:
            self._tail = ModelTail(self.causal)
        return self._tail.logits(hidden)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        segments: Tensor,
        sequence: Tensor,
        positions: Tensor,
        tasks: Tensor,
        judged: Tensor,
    ) -> TrainingOutput:
        """input_ids, labels, segments, sequence, positions: ``[B, L]``; tasks, judged: ``[S]``."""
        tokens = self.tokens(input_ids, segments, sequence, tasks.shape[0])
        hidden, tokens = self.hidden_states(input_ids, positions, sequence, tokens)
        places = targets_of(labels)
        sums = next_token_sums(
            self.logits(hidden[places]),
            labels.flatten()[places + 1],
            tasks[tokens.sequence[places]],
            self.balance.get_buffer("weights").shape[0],
        )
        instruction = representation = None
        components = self.components
        if components is not None and components.adherence_head is not None:
            instruction = instruction_sum(components.adherence(hidden, tokens), judged)
        if self.projection is not None and tokens.instruction is not None:
            counted = represented(tokens, judged)
            representation = representation_sum(tokens.instruction, self.projection(hidden, tokens), counted)
        variances = self.balance.log_variances
        return TrainingOutput(
            next_token=sums + self._everything_is_used(),
            instruction=instruction,
            representation=representation,
            log_variances=None if variances is None else variances + 0.0,
        )

    def _everything_is_used(self) -> Tensor | float:
        """Zero, through every parameter outside the base: data-parallel training waits for each one's gradient."""
        if not torch.distributed.is_initialized():
            return 0.0
        own = [*(() if self.components is None else self.components.parameters()), *self.balance.parameters()]
        own += [] if self.projection is None else list(self.projection.parameters())
        return 0.0 * sum((p.sum() for p in own if p.requires_grad), torch.zeros((), device=self.causal.device))


def represented(tokens: TokenBatch, judged: Tensor) -> Tensor:
    """``[S]`` bool: sequences whose own response and instruction are there to be compared."""

    def has(chosen: Tensor) -> Tensor:
        return torch.bincount(tokens.sequence[chosen], minlength=tokens.sequences) > 0

    return has(tokens.is_instruction) & has(tokens.is_response) & (judged != 0)


def judged_count(judged: Tensor) -> int:
    """How many sequences the instruction loss sees."""
    return int((judged != UNJUDGED).sum())
