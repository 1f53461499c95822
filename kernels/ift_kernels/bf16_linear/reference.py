"""Definition of a linear layer with a packed weight."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear

from ift_kernels.bf16_linear.types import PackedWeight


def bf16_linear_reference(inputs: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.bf16_linear.bf16_linear`."""
    return linear(inputs, weight.dense(), bias)
