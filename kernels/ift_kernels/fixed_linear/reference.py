"""Definition of the linear layer."""

from __future__ import annotations

import torch
from torch import Tensor


def fixed_linear_reference(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See :func:`ift_kernels.fixed_linear.fixed_linear`. A row at a time: in any batch it is the same product."""
    wide = torch.promote_types(inputs.dtype, torch.float32)
    rows = [weight.to(wide) @ row.to(wide) for row in inputs]
    output = torch.stack(rows) if rows else inputs.new_zeros((0, weight.shape[0]), dtype=wide)
    return (output if bias is None else output + bias.to(wide)).to(inputs.dtype)
