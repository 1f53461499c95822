"""Freed memory goes back to the system."""

from __future__ import annotations

import sys

import numpy as np
import psutil
import pytest

from ift_serve.system.heap import trim_heap


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_what_was_freed_below_something_kept_is_given_back() -> None:
    process = psutil.Process()
    # Blocks too small for a mapping of their own, and one behind them that stays.
    blocks = [np.ones(64 * 1024, dtype=np.uint8) for _ in range(2048)]
    kept = blocks[-1].copy()
    held = process.memory_info().rss
    del blocks
    trim_heap()
    assert held - process.memory_info().rss > 100 * 2**20
    assert kept.sum() == kept.size
