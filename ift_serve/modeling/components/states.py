"""Components that change hidden states: the gate after each layer, and the pathways before the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from ift_serve.modeling.components.tokens import TokenBatch


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
        down, value = self.of_instruction(tokens.instruction, slice(layer, layer + 1))
        down, value = down[0][tokens.sequence], value[0][tokens.sequence]
        narrow = torch.addmm(down, hidden.to(down.dtype), self.down[layer, :, : hidden.shape[1]].T)
        gate = torch.sigmoid(narrow @ self.up[layer].T)
        if hidden.dtype == gate.dtype:
            return torch.addcmul(hidden, gate, value)
        return hidden + (gate * value).to(hidden.dtype)

    def of_instruction(self, instruction: Tensor, layers: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """What depends on c alone: its part of the first factor of G_l, ``[L, S, r]``, and ``V_l c``, ``[L, S, d]``.

        instruction: ``[S, d_c]``. Serving computes it for all layers, once a request.
        """
        vectors = instruction.to(self.down.dtype)
        own = self.down[layers, :, self.down.shape[2] - vectors.shape[1] :]
        return torch.matmul(vectors, own.transpose(1, 2)), torch.matmul(vectors, self.value[layers].transpose(1, 2))


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
