"""Token metadata for components: segment, sequence and instruction of each token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

INSTRUCTION, RESPONSE = 1, 3


@dataclass(slots=True)
class TokenBatch:
    """T tokens of S sequences, flat; a padded ``[B, L]`` batch is flattened to ``T = B L``.

    input_ids: ``[T]`` int64. segments: ``[T]`` uint8 (0 template, 1 instruction, 2 context, 3 response; padding is
    template). sequence: ``[T]`` int64 in ``0 .. sequences - 1``; each of several packed documents is a sequence.
    instruction: ``[S, d_c]``, the pooled instruction c of each sequence. has_instruction: False where it is known that
    none of the tokens is an instruction's, so that what changes only those can be left out.
    """

    input_ids: Tensor
    segments: Tensor
    sequence: Tensor
    sequences: int
    instruction: Tensor | None = None
    has_instruction: bool = True

    @property
    def is_instruction(self) -> Tensor:
        """``[T]`` bool."""
        return self.segments == INSTRUCTION

    @property
    def is_response(self) -> Tensor:
        """``[T]`` bool."""
        return self.segments == RESPONSE

    def own_instruction(self) -> Tensor:
        """c of each token's sequence, ``[T, d_c]``."""
        assert self.instruction is not None, "the instruction vectors were not computed"
        return self.instruction[self.sequence]

    def with_instruction(self, instruction: Tensor | None) -> TokenBatch:
        """The same tokens with their sequences' c."""
        return replace(self, instruction=instruction)


def pool(values: Tensor, scores: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Softmax-weighted mean of each sequence's rows: values ``[n, d]``, scores ``[n]`` -> ``[S, d]``.

    Zeros for a sequence without rows. Sums are kept apart by sequence, so nothing leaks between documents.
    """
    low = torch.full((sequences,), float("-inf"), dtype=scores.dtype, device=scores.device)
    top = low.scatter_reduce(0, sequence, scores.detach(), "amax")
    weights = torch.exp(scores - top[sequence])
    total = torch.zeros(sequences, dtype=scores.dtype, device=scores.device).index_add(0, sequence, weights)
    mixed = torch.zeros(sequences, values.shape[1], dtype=values.dtype, device=values.device)
    mixed = mixed.index_add(0, sequence, values * (weights / total[sequence])[:, None].to(values.dtype))
    return mixed
