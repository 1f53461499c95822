"""Chained hashes that name the content of cache blocks.

Keys and values of a block depend on every token before it, so a block's hash covers its parent's
hash. The root covers whatever else they depend on: an adapter version, or a salt per tenant.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

_DIGEST_BYTES = 16


def root_digest(cache_key: str) -> bytes:
    """The parent of a first block. Requests with different keys share nothing."""
    return blake2b(cache_key.encode(), digest_size=_DIGEST_BYTES).digest()


def extend_digests(
    digests: list[bytes], root: bytes, token_ids: list[int], segment_ids: bytes, block_size: int, blocks: int
) -> None:
    """Append the hashes of full blocks ``len(digests) .. blocks-1`` of ``token_ids``.

    ``segment_ids`` is empty unless keys and values depend on the segments.
    """
    first = len(digests)
    if first >= blocks:
        return
    parent = digests[-1] if digests else root
    packed = array("i", token_ids[first * block_size : blocks * block_size]).tobytes()
    stride = block_size * array("i").itemsize
    for index in range(blocks - first):
        content = parent + packed[index * stride : (index + 1) * stride]
        if segment_ids:
            start = (first + index) * block_size
            content += segment_ids[start : start + block_size]
        parent = blake2b(content, digest_size=_DIGEST_BYTES).digest()
        digests.append(parent)
