"""Definition of the gated activation."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import silu


def silu_and_mul_reference(gate_up: Tensor) -> Tensor:
    """See :func:`ift_kernels.silu_and_mul.silu_and_mul`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up
