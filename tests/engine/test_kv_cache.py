"""The cache's memory: there when it is written, not before."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from ift_serve.engine.runner.kv_cache import KVCache, bytes_per_block, untouched_zeros
from ift_serve.modeling.decoder.flat_batch import LayerGeometry
from ift_serve.system.process_usage import resident_bytes

GEOMETRY = [LayerGeometry(8, 2, 64, 0, 0.0)] * 4
MIB = 2**20


def _resident() -> int:
    held = resident_bytes(os.getpid())
    assert held is not None
    return held


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_cache_holds_no_more_than_what_was_written() -> None:
    size = bytes_per_block(GEOMETRY, 16, torch.bfloat16)
    blocks = 1024 * MIB // size
    before = _resident()
    cache = KVCache(GEOMETRY, blocks, 16, torch.bfloat16)
    assert _resident() - before < 32 * MIB, "a cache of a GiB that nobody has written to"
    for layer in cache.layers:
        layer.keys[: blocks // 8] = 1
        layer.values[: blocks // 8] = 1
    assert 120 * MIB < _resident() - before < 160 * MIB, "an eighth is in use"
    del cache, layer
    assert _resident() - before < 32 * MIB, "gone with the cache"


def test_what_was_not_written_is_zero_and_blocks_are_copied_whole() -> None:
    cache = KVCache(GEOMETRY, 5, 16, torch.float32)
    for layer in cache.layers:
        assert not layer.keys.any() and not layer.values.any()
        layer.keys[1], layer.values[1] = torch.randn(2, 64, 16), torch.randn(2, 16, 64)
    cache.copy_blocks([(1, 4)])
    for layer in cache.layers:
        assert torch.equal(layer.keys[4], layer.keys[1]) and torch.equal(layer.values[4], layer.values[1])
        assert not layer.keys[[0, 2, 3]].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_untouched_zeros_are_tensors_like_others(dtype: torch.dtype) -> None:
    zeros = untouched_zeros((3, 5, 7), dtype)
    assert zeros.dtype == dtype and zeros.is_contiguous() and torch.equal(zeros, torch.zeros(3, 5, 7, dtype=dtype))
    zeros += 1
    assert float(zeros.sum()) == 105
