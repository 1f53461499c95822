"""Which implementation of an operation runs.

``auto`` follows the device of the tensors: Triton on CUDA, the compiled kernels on the CPU. ``triton``, ``cpu`` and
``reference`` ask for one by name; Triton on CPU tensors runs in its interpreter, where a test has set that up.
"""

from __future__ import annotations

from torch import Tensor

BACKENDS = ("auto", "triton", "cpu", "reference")


def uses_triton(tensor: Tensor, backend: str) -> bool:
    """Whether the Triton kernel is to compute this."""
    return backend == "triton" or (backend == "auto" and tensor.device.type == "cuda")


def uses_cpu(tensor: Tensor, backend: str) -> bool:
    """Whether the compiled CPU kernel is to compute this."""
    return backend == "cpu" or (backend == "auto" and tensor.device.type == "cpu")
