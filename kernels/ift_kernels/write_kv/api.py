"""Writing keys and values into cache blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton

_CPU_DTYPES = (torch.float32, torch.bfloat16)


def write_kv(
    key: Tensor,
    value: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    backend: str = "auto",
) -> None:
    """Scatter ``key`` and ``value`` (``[T, H_kv, D]``) to ``slots`` (``[T]`` int32: block * B + offset).

    Cache layouts as in :func:`ift_kernels.paged_decode.paged_decode`. For models whose rotation is their own.
    A negative slot is padding: nothing is written. What is written is divided by its scale first; float8_e4m3fn caches
    saturate at 448. backend: see :mod:`ift_kernels.backend`; on the CPU the reference runs.
    """
    arguments = (key, value, slots, key_cache, value_cache, key_scale, value_scale)
    if uses_triton(key, backend):
        from ift_kernels.write_kv.triton import write_kv_triton

        write_kv_triton(*arguments)
    else:
        from ift_kernels.write_kv.reference import write_kv_reference

        write_kv_reference(*arguments)


def rotate_and_write_kv(
    states: Tensor,
    heads: int,
    kv_heads: int,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    query_norm: Tensor | None = None,
    key_norm: Tensor | None = None,
    epsilon: float = 0.0,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    segments: Tensor | None = None,
    mask: Tensor | None = None,
    sequence: Tensor | None = None,
    backend: str = "auto",
) -> None:
    """Rotate queries and keys in place and write keys and values into the cache.

    states: ``[T, (heads + 2 kv_heads) D]`` contiguous: the merged projection, queries then keys then values.
    cosine, sine: ``[P, R]`` float32 contiguous, one row a position, R <= D the rotated width in the half-split layout:
    ``x' = x cos + [-x_2, x_1] sin`` (Su et al., RoFormer, eq. 34). positions, slots: ``[T]`` int32.
    query_norm, key_norm: ``[D]`` RMS-norm weights applied to each head before the rotation, or None.
    key_scale, value_scale, negative slots and float8 caches as in :func:`write_kv`; a padding token's states stay as
    they are or are rotated, whichever the implementation does.
    segments: ``[T]`` uint8, or None. With it ``mask`` (``[S, L]`` uint8) gets
    ``mask[sequence[t], positions[t]] = segments[t] == 1`` for the attention bias; ``sequence`` is ``[T]`` int32.
    backend: see :mod:`ift_kernels.backend`; what has no CPU kernel (float16, float8 caches, D not a multiple of
    16) runs as the reference there.
    """
    arguments = (
        states,
        heads,
        kv_heads,
        cosine,
        sine,
        positions,
        slots,
        key_cache,
        value_cache,
        query_norm,
        key_norm,
        epsilon,
    )
    marks = None if segments is None or mask is None or sequence is None else (segments, mask, sequence)
    if uses_triton(states, backend):
        from ift_kernels.write_kv.triton import rotate_and_write_kv_triton

        rotate_and_write_kv_triton(*arguments, key_scale, value_scale, marks)
        return
    plain = states.dtype in _CPU_DTYPES and key_cache.dtype == states.dtype and key_scale == value_scale == 1.0
    if uses_cpu(states, backend) and plain and value_cache.shape[3] == key_cache.shape[2]:
        from ift_kernels.write_kv.cpu import rotate_and_write_kv_cpu

        rotate_and_write_kv_cpu(*arguments, marks)
    else:
        from ift_kernels.write_kv.reference import rotate_and_write_kv_reference

        rotate_and_write_kv_reference(*arguments, key_scale, value_scale, marks)
