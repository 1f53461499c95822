"""The instruction encoder: one bidirectional layer over the instruction's embeddings, pooled by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from ift_serve.modeling.components.config import ENCODER_HEADS
from ift_serve.modeling.components.tokens import TokenBatch, pool

_EXPANSION = 2


class InstructionEncoder(nn.Module):
    """Embeddings ``[T, d]`` -> c ``[S, d_c]``, computed in float32.

    Attention runs within each sequence only. Positions are not encoded beyond what the embeddings carry: the vector
    says what is asked, the decoder reads how.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(hidden, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.widen = nn.Linear(width, _EXPANSION * width)
        self.narrow = nn.Linear(_EXPANSION * width, width)
        self.score = nn.Linear(width, 1, bias=False)
        self._width = width

    def forward(self, embeddings: Tensor, tokens: TokenBatch) -> Tensor:
        """c of every sequence; zeros where there is no instruction token."""
        kind = self.input.weight.dtype
        chosen = tokens.is_instruction.nonzero()[:, 0]
        sequence = tokens.sequence[chosen]
        states = self.input(_normal(embeddings[chosen].to(kind)))
        states = states + self.output(self._attend(_normal(states), sequence, tokens.sequences))
        states = states + self.narrow(gelu(self.widen(_normal(states))))
        states = _normal(states)
        return pool(states, self.score(states)[:, 0], sequence, tokens.sequences)

    def _attend(self, states: Tensor, sequence: Tensor, sequences: int) -> Tensor:
        """Every token sees its own sequence, laid out as rows of a padded batch."""
        counts = torch.bincount(sequence, minlength=sequences)
        longest = int(counts.max()) if len(sequence) else 0
        order = torch.argsort(sequence, stable=True)
        starts = torch.cumsum(counts, 0) - counts
        place = torch.empty_like(sequence)
        place[order] = torch.arange(len(sequence), device=sequence.device) - starts[sequence[order]]
        qkv = states.new_zeros(sequences, longest, 3 * self._width)
        qkv = qkv.index_put((sequence, place), self.qkv(states))
        shape = (sequences, longest, ENCODER_HEADS, self._width // ENCODER_HEADS)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        seen = torch.arange(longest, device=states.device)[None] < counts[:, None]
        # A sequence without instruction tokens must see something, or its unused row would be NaN.
        seen = seen | (counts == 0)[:, None]
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return mixed.transpose(1, 2).flatten(2)[sequence, place]


def _normal(states: Tensor) -> Tensor:
    return layer_norm(states, states.shape[-1:])
