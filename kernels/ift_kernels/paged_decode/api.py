"""Attention of single query tokens over block tables."""

from __future__ import annotations

from torch import Tensor


def paged_decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_tables: Tensor,
    row_sequence: Tensor,
    lengths: Tensor,
    longest: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    tiles: Tensor | None = None,
) -> Tensor:
    """softmax(cap(scale q K^T)) V for every row, over the first ``lengths[row]`` cached tokens of its sequence.

    query: ``[R, H, D]`` float32 or bfloat16, rows may be strided; several rows may share one sequence.
    key_cache: ``[N, H_kv, D, B]`` (keys transposed within a block), value_cache: ``[N, H_kv, B, D']`` with
    ``D'`` = D rounded up to 16; both contiguous, of the query's dtype; B a multiple of 16.
    block_tables: ``[S, M]`` int32 block ids. row_sequence: ``[R]`` int32 row of ``block_tables``.
    lengths: ``[R]`` int32, at least 1; longest: an upper bound of them.
    window: only the last ``window`` tokens are seen (0: all). softcap: ``cap(s) = softcap tanh(s / softcap)``.
    tiles: ``[K + 1]`` int32 bounds of groups of at most 4 consecutive rows of one sequence with ascending lengths;
    a hint that lets a kernel load each key once for all of them, without any effect on the result.
    Returns ``[R, H, D]`` contiguous. Accumulates in float32.
    """
    if query.device.type == "cpu":
        from ift_kernels.paged_decode.cpu import paged_decode_cpu

        return paged_decode_cpu(
            query, key_cache, value_cache, block_tables, row_sequence, lengths, longest, scale, window, softcap, tiles
        )
    from ift_kernels.paged_decode.reference import paged_decode_reference

    return paged_decode_reference(
        query, key_cache, value_cache, block_tables, row_sequence, lengths, scale, window, softcap
    )
