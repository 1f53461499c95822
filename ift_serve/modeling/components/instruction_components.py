"""All components of one adapter, as one module whose state is the adapter's extras file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ift_serve.modeling.components.attention import AttentionBias, AttentionGain
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.embeddings import InstructionEmbedding, SegmentEmbedding, TwoStreamFusion
from ift_serve.modeling.components.encoder import InstructionEncoder
from ift_serve.modeling.components.heads import (
    MODES,
    AdherenceHead,
    ModeClassifier,
    SequenceTemperature,
    TemperatureHead,
)
from ift_serve.modeling.components.states import InstructionGate, ReasoningPathways
from ift_serve.modeling.components.tokens import TokenBatch


class InstructionComponents(nn.Module):
    """Fresh, it changes nothing: the model with it computes the base model's logits bit for bit.

    Every method works on any subset of a batch's rows, which is how serving gives each adapter its own. ``None``
    stands for a component that is off.
    """

    def __init__(self, config: ComponentsConfig, base: BaseShape) -> None:
        super().__init__()
        self.config = config
        self.base = base
        d, c = base.hidden_size, config.instruction_encoder
        self.segment_embedding = SegmentEmbedding(d) if config.segment_embedding else None
        self.instruction_embedding = (
            InstructionEmbedding(base.vocabulary_size, config.instruction_embedding, d)
            if config.instruction_embedding
            else None
        )
        self.instruction_encoder = InstructionEncoder(d, c) if c else None
        self.two_stream = TwoStreamFusion(d, c, config.two_stream) if config.two_stream else None
        self.attention_bias = AttentionBias(base.layers, base.heads, c) if config.attention_bias else None
        self.attention_gain = AttentionGain(base.layers, base.heads) if config.attention_gain else None
        self.instruction_gate = (
            InstructionGate(base.layers, d, c, config.instruction_gate) if config.instruction_gate else None
        )
        self.reasoning_pathways = ReasoningPathways(d, config.reasoning_pathways) if config.reasoning_pathways else None
        self.temperature_head = TemperatureHead(d, c, config.temperature_head) if config.temperature_head else None
        self.sequence_temperature = (
            SequenceTemperature(c, config.sequence_temperature) if config.sequence_temperature else None
        )
        self.mode_classifier = ModeClassifier(c, config.mode_classifier) if config.mode_classifier else None
        self.adherence_head = AdherenceHead(d, c, config.adherence_head) if config.adherence_head else None

    def instruction_vector(self, embeddings: Tensor, tokens: TokenBatch) -> Tensor | None:
        """c ``[S, d_c]`` from base embeddings ``[T, d]`` of at least all instruction tokens; None without encoder."""
        return None if self.instruction_encoder is None else self.instruction_encoder(embeddings, tokens)

    def strength(self, instruction: Tensor | None, sequences: int) -> Tensor:
        """s ``[S]`` float32, by which the attention bias of each sequence is multiplied; ones where nothing sets it."""
        if self.attention_bias is not None:
            return self.attention_bias.strength(instruction, sequences)
        return torch.ones(sequences)

    def head_bias(self) -> Tensor:
        """b ``[layers, heads]``, zeros where the bias is off."""
        if self.attention_bias is not None:
            return self.attention_bias.head_bias()
        return torch.zeros(self.base.layers, self.base.heads)

    def embed(self, embeddings: Tensor, tokens: TokenBatch) -> Tensor:
        """Token embeddings ``[T, d] -> [T, d]``; the fusion needs the tokens' c."""
        second = self.instruction_embedding if tokens.has_instruction else None
        for component in (self.segment_embedding, second, self.two_stream):
            if component is not None:
                embeddings = component(embeddings, tokens)
        return embeddings

    def gain(self, layer: int, attended: Tensor, tokens: TokenBatch) -> Tensor:
        """Attention output ``[T, H, D] -> [T, H, D]``."""
        return attended if self.attention_gain is None else self.attention_gain(layer, attended, tokens)

    def after_layer(self, layer: int, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """Output of a decoder layer ``[T, d] -> [T, d]``."""
        return hidden if self.instruction_gate is None else self.instruction_gate(layer, hidden, tokens)

    def before_head(self, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """Hidden states after the last normalisation ``[T, d] -> [T, d]``."""
        return hidden if self.reasoning_pathways is None else self.reasoning_pathways(hidden)

    def temperature(self, hidden: Tensor, instruction: Tensor | None, statistics: Tensor) -> Tensor:
        """``T / T_0 [R]`` float32 from ``[R, d]``, ``[R, d_c]`` or None, and entropy and ``p1 - p2`` ``[R, 2]``."""
        if self.temperature_head is None:
            return torch.ones(hidden.shape[0], device=hidden.device)
        factor: Tensor = self.temperature_head(hidden, instruction, statistics)
        return factor

    def initial_temperature(self, instruction: Tensor) -> Tensor:
        """What T_0 of each request is multiplied with, ``[S]`` float32 from c ``[S, d_c]``; ones without its head."""
        if self.sequence_temperature is None:
            return torch.ones(instruction.shape[0], device=instruction.device)
        factor: Tensor = self.sequence_temperature(instruction)
        return factor

    def mode(self, instruction: Tensor) -> str:
        """How a request with c ``[1, d_c]`` is reasoned about: one of ``MODES``. The classifier must be on."""
        assert self.mode_classifier is not None, "the classifier of instructions is off"
        return MODES[int(self.mode_classifier(instruction)[0].argmax())]

    def adherence(self, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """Logits ``[S]`` that each sequence's response follows its instruction. The head must be on."""
        assert self.adherence_head is not None, "the adherence head is off"
        judged: Tensor = self.adherence_head(hidden, tokens)
        return judged
