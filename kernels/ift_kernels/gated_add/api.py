"""``h += delta``, then ``h += sigmoid(B (A h + offset)) value`` for rows of many gates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ift_kernels.backend import uses_cpu
from ift_kernels.gated_add.types import Gates

_LANES = 16
_Kernel = Callable[[Tensor, Tensor | None, int, Gates], None]


@cache
def _cpu() -> _Kernel:
    from ift_kernels.gated_add.cpu import gated_add_cpu

    return gated_add_cpu


def gated_add(hidden: Tensor, delta: Tensor | None, layer: int, gates: Gates, backend: str = "auto") -> None:
    """Add a layer's output to the residual stream, and to the rows of each gate what that lets in, in place.

    hidden, delta: ``[T, d]`` contiguous, of one dtype. ``h + delta`` is rounded to the dtype before the gate reads it.
    With ``A = down[layer]`` and ``B = up[layer]^T`` of a row's group, and ``offset`` and ``value`` of its sequence:
    ``h_t += sigmoid(B (A h_t + offset)) value``, elementwise. A value of 0 leaves the row as it is, bit for bit. On
    the CPU sums are float32 and rounded once, and a row's result does not depend on the others, bit for bit.
    """
    if uses_cpu(hidden, backend) and hidden.shape[1] % _LANES == 0 and hidden.dtype in (torch.float32, torch.bfloat16):
        _cpu()(hidden, delta, layer, gates)
        return
    from ift_kernels.gated_add.reference import gated_add_reference

    gated_add_reference(hidden, delta, layer, gates)
