"""Heads beside the logits: the temperature of a token or a whole answer, the mode of reasoning, the judgement of a
response."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ift_serve.modeling.components.tokens import TokenBatch, pool

LARGEST_FACTOR = 3.0
"""A temperature head multiplies by at most this, and divides by at most this."""
MODES = ("none", "trace", "branch")
"""What a classifier of instructions chooses from; of equals the first."""


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


class ModeClassifier(nn.Module):
    """Logits of the modes of reasoning, ``W gelu(W_c c + b_c) + b`` in the order of ``MODES``; W, b zero."""

    def __init__(self, instruction: int, width: int) -> None:
        super().__init__()
        self.instruction = nn.Linear(instruction, width)
        self.output = nn.Linear(width, len(MODES))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, instruction: Tensor) -> Tensor:
        """c ``[S, d_c]`` -> ``[S, 3]`` float32."""
        logits: Tensor = self.output(gelu(self.instruction(instruction.to(self.instruction.weight.dtype))))
        return logits.float()


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
        chosen = tokens.is_response.nonzero()[:, 0]
        sequence = tokens.sequence[chosen]
        features = self._features(hidden[chosen], tokens.instruction, sequence)
        pooled = pool(features, self.score(features)[:, 0], sequence, tokens.sequences)
        logits: Tensor = self.output(pooled)
        return logits[:, 0].float()

    def of_tokens(self, hidden: Tensor, instruction: Tensor | None) -> Tensor:
        """What each response token of one sequence adds to its logit: ``[n, d]``, ``[1, d_c]`` or None -> ``[n, 2]``.

        The output layer is linear, so the logit is ``sum_t softmax(s)_t v_t`` over rows ``(s_t, v_t)``: tokens can be
        judged as they are computed, in any number of steps, and put together afterwards.
        """
        first = torch.zeros(hidden.shape[0], dtype=torch.int64, device=hidden.device)
        features = self._features(hidden, instruction, first)
        return torch.cat((self.score(features), self.output(features)), 1).float()

    def _features(self, hidden: Tensor, instruction: Tensor | None, sequence: Tensor) -> Tensor:
        kind = self.states.weight.dtype
        features: Tensor = self.states(hidden.to(kind))
        if self.instruction is not None and instruction is not None:
            features = features + self.instruction(instruction.to(kind))[sequence]
        return gelu(features)
