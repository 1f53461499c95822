"""Definition of a linear layer with a weight of few bits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from ift_kernels.quantized_linear.types import GROUP, INPUT_LIMIT, QuantizedWeight

_SMALLEST = 1e-30


def round_inputs(inputs: Tensor) -> Tensor:
    """``[T, K]`` as the product sees them: each group of inputs in steps of its largest magnitude over the limit."""
    groups = inputs.float().view(inputs.shape[0], -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    # Not ``INPUT_LIMIT / largest``, for which torch multiplies by a rounded reciprocal.
    scales = torch.full_like(largest, INPUT_LIMIT) / largest
    steps = torch.where(largest > _SMALLEST, (groups * scales).round(), 0.0)
    return (steps * (largest / INPUT_LIMIT)).view(inputs.shape)


def quantized_linear_reference(inputs: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.quantized_linear.quantized_linear`."""
    return linear(round_inputs(inputs), weight.dense(), bias).to(inputs.dtype)
