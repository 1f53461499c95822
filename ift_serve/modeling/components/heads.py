"""Heads beside the logits: the temperature of a token or of a whole answer, and the judgement of a response."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ift_serve.modeling.components.tokens import TokenBatch, pool

LARGEST_FACTOR = 3.0
"""A temperature head multiplies by at most this, and divides by at most this."""


class TemperatureHead(nn.Module):
    """``T / T_0 = exp(ln 3 tanh(w . phi + b))``, ``phi = gelu(W_h h + W_c c + W_f [entropy, p1 - p2])``; w, b zero."""

    def __init__(self, hidden: int, instruction: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(hidden, width)
        self.instruction = nn.Linear(instruction, width, bias=False) if instruction else None
        self.statistics = nn.Linear(2, width, bias=False)
        self.output = nn.Linear(width, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor, instruction: Tensor | None, statistics: Tensor) -> Tensor:
        """hidden ``[R, d]``, instruction ``[R, d_c]`` or None, statistics ``[R, 2]`` -> ``[R]`` float32 in [1/3, 3]."""
        kind = self.hidden.weight.dtype
        features = self.hidden(hidden.to(kind)) + self.statistics(statistics.to(kind))
        if self.instruction is not None and instruction is not None:
            features = features + self.instruction(instruction.to(kind))
        return torch.exp(math.log(LARGEST_FACTOR) * torch.tanh(self.output(gelu(features))[:, 0].float()))


class SequenceTemperature(nn.Module):
    """One temperature for a whole answer: ``T / T_0 = exp(ln 3 tanh(w . gelu(W_c c + b_c) + b))``; w, b zero."""

    def __init__(self, instruction: int, width: int) -> None:
        super().__init__()
        self.instruction = nn.Linear(instruction, width)
        self.output = nn.Linear(width, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, instruction: Tensor) -> Tensor:
        """c ``[S, d_c]`` -> ``[S]`` float32 in [1/3, 3]."""
        features = self.instruction(instruction.to(self.instruction.weight.dtype))
        return torch.exp(math.log(LARGEST_FACTOR) * torch.tanh(self.output(gelu(features))[:, 0].float()))


class AdherenceHead(nn.Module):
    """Logit of "this response follows this instruction", from attention-pooled response states and c."""

    def __init__(self, hidden: int, instruction: int, width: int) -> None:
        super().__init__()
        self.states = nn.Linear(hidden, width)
        self.instruction = nn.Linear(instruction, width) if instruction else None
        self.score = nn.Linear(width, 1, bias=False)
        self.output = nn.Linear(width, 1)

    def forward(self, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """Hidden states ``[T, d]`` -> ``[S]`` float32; a sequence without response gets the bias of the output."""
        kind = self.states.weight.dtype
        chosen = tokens.is_response.nonzero()[:, 0]
        sequence = tokens.sequence[chosen]
        features = self.states(hidden[chosen].to(kind))
        if self.instruction is not None and tokens.instruction is not None:
            features = features + self.instruction(tokens.instruction.to(kind))[sequence]
        features = gelu(features)
        pooled = pool(features, self.score(features)[:, 0], sequence, tokens.sequences)
        logits: Tensor = self.output(pooled)
        return logits[:, 0].float()
