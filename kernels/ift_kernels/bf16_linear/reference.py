"""Definition of a linear layer with a packed weight, and of the packing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from ift_kernels.bf16_linear.types import PANEL, PackedWeight


def pack_weights_reference(weights: Sequence[Tensor]) -> PackedWeight | None:
    """See :func:`ift_kernels.bf16_linear.pack_weight`."""
    panels = []
    for weight in weights:
        outputs, inputs = weight.shape
        narrow = weight.to(torch.bfloat16)
        if not torch.allclose(narrow.to(weight.dtype), weight, rtol=0, atol=0, equal_nan=True):
            return None
        panels.append(narrow.reshape(outputs // PANEL, PANEL, inputs // 2, 2).transpose(1, 2))
    return PackedWeight(torch.cat(panels))


def bf16_linear_reference(inputs: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.bf16_linear.bf16_linear`."""
    return linear(inputs, weight.dense(), bias)
