"""Components that change token embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu

from ift_serve.modeling.components.tokens import TokenBatch

_SEGMENTS = 4


class SegmentEmbedding(nn.Module):
    """``e_t += S[segment_t]``, S ``[4, d]`` zero at first."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(_SEGMENTS, hidden))

    def forward(self, embeddings: Tensor, tokens: TokenBatch) -> Tensor:
        """``[T, d] -> [T, d]``."""
        return embeddings + embedding(tokens.segments.long(), self.weight).to(embeddings.dtype)


class InstructionEmbedding(nn.Module):
    """``e_t += m_t A[x_t] B``: a second, low-rank embedding of instruction tokens; A ``[V, r]`` zero at first."""

    def __init__(self, vocabulary: int, rank: int, hidden: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(vocabulary, rank))
        self.columns = nn.Parameter(torch.randn(rank, hidden) / rank**0.5)

    def forward(self, embeddings: Tensor, tokens: TokenBatch) -> Tensor:
        """``[T, d] -> [T, d]``."""
        change = embedding(tokens.input_ids, self.rows) @ self.columns
        return embeddings + (change * tokens.is_instruction[:, None]).to(embeddings.dtype)


class TwoStreamFusion(nn.Module):
    """``e_t += U gelu(D [e_t; c])``, U zero at first."""

    def __init__(self, hidden: int, instruction: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden + instruction, width)
        self.up = nn.Linear(width, hidden, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, embeddings: Tensor, tokens: TokenBatch) -> Tensor:
        """``[T, d] -> [T, d]``."""
        both = torch.cat(
            (embeddings.to(self.down.weight.dtype), tokens.own_instruction().to(self.down.weight.dtype)), 1
        )
        change: Tensor = self.up(gelu(self.down(both)))
        return embeddings + change.to(embeddings.dtype)
