"""Components inside attention: the bias of instruction keys, and the gain of instruction tokens' output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ift_serve.modeling.components.tokens import TokenBatch

_LARGEST_BIAS = 2.0
"""The strength reaches at most 2, so that strength times bias stays within 4."""


class AttentionBias(nn.Module):
    """``score_ij += s b[layer, head] m_j`` with ``s = 1 + tanh(w_s . c)``; b and w_s zero at first."""

    def __init__(self, layers: int, heads: int, instruction: int) -> None:
        super().__init__()
        self.heads = nn.Parameter(torch.zeros(layers, heads))
        self.strength_weight = nn.Parameter(torch.zeros(instruction)) if instruction else None

    def head_bias(self) -> Tensor:
        """b ``[layers, heads]`` within +-2."""
        return self.heads.clamp(-_LARGEST_BIAS, _LARGEST_BIAS)

    def strength(self, instruction: Tensor | None, sequences: int) -> Tensor:
        """s ``[S]`` float32, in (0, 2)."""
        if self.strength_weight is None or instruction is None:
            return torch.ones(sequences, device=self.heads.device)
        return 1 + torch.tanh((instruction.to(self.strength_weight.dtype) @ self.strength_weight).float())


class AttentionGain(nn.Module):
    """Attention output of instruction tokens times ``1 + tanh(g[layer, head])``, g zero at first."""

    def __init__(self, layers: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, heads))

    def forward(self, layer: int, attended: Tensor, tokens: TokenBatch) -> Tensor:
        """``[T, H, D] -> [T, H, D]``."""
        change = torch.tanh(self.weight[layer])[None] * tokens.is_instruction[:, None]
        return attended * (1 + change)[..., None].to(attended.dtype)
