"""Tensors that may be spread over processes (FSDP2), and plain ones, handled alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def reshard(model: nn.Module) -> None:
    """After a forward pass some modules keep whole parameters; let the shards, which are trained, stand there again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, detached. All processes that share it must call it."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def local(tensor: Tensor) -> Tensor:
    """This process's part, through which gradients flow back; a plain tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def into(target: Tensor, full: Tensor) -> Tensor:
    """Copy a full tensor into the target, each process its part; returns the target.

    Every process holds the full tensor, so nothing is sent.
    """
    if isinstance(target, DTensor):
        source = distribute_tensor(
            full.to(target.device, target.dtype), target.device_mesh, target.placements, src_data_rank=None
        )
        target.copy_(source)
    else:
        target.copy_(full)
    return target
