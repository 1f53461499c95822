"""Definition of the fused residual addition and RMS normalisation."""

from __future__ import annotations

import torch
from torch import Tensor


def fused_add_rms_norm_reference(hidden: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`ift_kernels.fused_add_rms_norm.fused_add_rms_norm`."""
    if delta is not None:
        hidden += delta
    wide = hidden.float()
    normalised = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * normalised.to(hidden.dtype)
