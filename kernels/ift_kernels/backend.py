"""Which implementation of an operation runs.

``auto`` follows the device of the tensors: Triton on CUDA, the compiled kernels on the CPU. ``triton``, ``cpu`` and
``reference`` ask for one by name; Triton on CPU tensors runs in its interpreter, where a test has set that up.
``triton_invariant`` is Triton with choices that do not depend on the batch, so that a row's bits do not: the number of
slices of K, the keys of a tile, and products that are not fused into sums.
"""

from __future__ import annotations

from torch import Tensor

INVARIANT = "triton_invariant"
BACKENDS = ("auto", "triton", INVARIANT, "cpu", "reference")


def is_triton(backend: str) -> bool:
    """Whether a backend by name is one of Triton's."""
    return backend in ("triton", INVARIANT)


def uses_triton(tensor: Tensor, backend: str) -> bool:
    """Whether the Triton kernel is to compute this."""
    return is_triton(backend) or (backend == "auto" and tensor.device.type == "cuda")


def uses_cpu(tensor: Tensor, backend: str) -> bool:
    """Whether the compiled CPU kernel is to compute this."""
    return backend == "cpu" or (backend == "auto" and tensor.device.type == "cpu")
