"""Components that change hidden states: the gate after each layer, and the pathways before the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from ift_serve.modeling.instruction.tokens import TokenBatch


class InstructionGate(nn.Module):
    """``h_t += sigmoid(G_l [h_t; c]) (V_l c)`` after layer l; G_l of low rank, V_l zero at first."""

    def __init__(self, layers: int, hidden: int, instruction: int, rank: int) -> None:
        super().__init__()
        size = hidden + instruction
        self.down = nn.Parameter(torch.randn(layers, rank, size) / size**0.5)
        self.up = nn.Parameter(torch.randn(layers, hidden, rank) / rank**0.5)
        self.value = nn.Parameter(torch.zeros(layers, hidden, instruction))

    def forward(self, layer: int, hidden: Tensor, tokens: TokenBatch) -> Tensor:
        """``[T, d] -> [T, d]``."""
        assert tokens.instruction is not None, "the instruction vectors were not computed"
        kind = self.down.dtype
        both = torch.cat((hidden.to(kind), tokens.own_instruction().to(kind)), dim=1)
        gate = torch.sigmoid((both @ self.down[layer].T) @ self.up[layer].T)
        value = (tokens.instruction.to(kind) @ self.value[layer].T)[tokens.sequence]
        return hidden + (gate * value).to(hidden.dtype)


class ReasoningPathways(nn.Module):
    """``h += W_o concat(gelu(W_1 h), tanh(W_2 h), silu(W_3 h))`` before the head, W_o zero at first."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.paths = nn.Linear(hidden, width)
        self.output = nn.Linear(width, hidden, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[T, d] -> [T, d]``."""
        first, second, third = self.paths(hidden.to(self.paths.weight.dtype)).chunk(3, dim=-1)
        mixed = torch.cat((gelu(first), torch.tanh(second), silu(third)), dim=-1)
        change: Tensor = self.output(mixed)
        return hidden + change.to(hidden.dtype)
