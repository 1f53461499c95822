"""Writing keys and values into cache blocks."""

from __future__ import annotations

from torch import Tensor


def write_kv(key: Tensor, value: Tensor, slots: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    """Scatter ``key`` and ``value`` (``[T, H_kv, D]``) to ``slots`` (``[T]`` int32: block * B + offset).

    Cache layouts as in :func:`ift_kernels.paged_decode.paged_decode`. For models whose rotation is their own.
    """
    from ift_kernels.write_kv.reference import write_kv_reference

    write_kv_reference(key, value, slots, key_cache, value_cache)


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
) -> None:
    """Rotate queries and keys in place and write keys and values into the cache.

    states: ``[T, (heads + 2 kv_heads) D]`` contiguous: the merged projection, queries then keys then values.
    cosine, sine: ``[P, R]`` float32, one row a position, R <= D the rotated width in the half-split layout:
    ``x' = x cos + [-x_2, x_1] sin`` (Su et al., RoFormer, eq. 34). positions, slots: ``[T]`` int32.
    query_norm, key_norm: ``[D]`` RMS-norm weights applied to each head before the rotation, or None.
    """
    arguments = (
        states, heads, kv_heads, cosine, sine, positions, slots, key_cache, value_cache, query_norm, key_norm, epsilon
    )  # fmt: skip
    if states.device.type == "cpu" and value_cache.shape[3] == key_cache.shape[2]:
        from ift_kernels.write_kv.cpu import rotate_and_write_kv_cpu

        rotate_and_write_kv_cpu(*arguments)
    else:
        from ift_kernels.write_kv.reference import rotate_and_write_kv_reference

        rotate_and_write_kv_reference(*arguments)
