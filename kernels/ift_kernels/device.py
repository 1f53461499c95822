"""What kernels need to know of the device to choose their tiles."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    """Streaming multiprocessors, and the compute capability as one number: 80 (A100), 90 (H100, H200), 100 (B200)."""

    multiprocessors: int = 132
    capability: int = 90


FLOAT8_CAPABILITY = 89
"""From here on the hardware converts float8_e4m3fn (Ada, Hopper); below, Triton does not know the type."""

_assumed = DeviceProperties()


@functools.cache
def _of_device(index: int) -> DeviceProperties:
    found = torch.cuda.get_device_properties(index)
    return DeviceProperties(found.multi_processor_count, found.major * 10 + found.minor)


def properties(tensor: Tensor) -> DeviceProperties:
    """Of the device a tensor is on. CPU tensors, as in the interpreter, count as on an H200."""
    if tensor.device.type == "cuda":
        return _of_device(tensor.device.index or 0)
    return _assumed


@contextmanager
def assume(assumed: DeviceProperties) -> Iterator[None]:
    """Pretend that CPU tensors are on such a device, to compile for it ahead of time."""
    global _assumed
    before, _assumed = _assumed, assumed
    try:
        yield
    finally:
        _assumed = before
