"""Instruction loss: binary cross entropy of the adherence head, on whether a response belongs to its instruction."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

UNJUDGED = -1


def instruction_sum(logits: Tensor, judged: Tensor) -> Tensor:
    """logits ``[S]``, judged ``[S]``: 1 for the true response, 0 for another's or a violating one, -1 to leave out.

    Returns the sum of ``-log sigmoid(+-logit)``.
    """
    counted = judged != UNJUDGED
    return binary_cross_entropy_with_logits(logits[counted].float(), judged[counted].float(), reduction="sum")
