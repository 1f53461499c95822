"""What the machine can do at best, beside which every figure is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Machine:
    """Measured rates; ``floor_ms`` is the time to read the model's weights once, which a lone token cannot beat."""

    threads: int
    memory_gb_per_second: float
    gemm_gflops: float
    weights_mb: float
    floor_ms: float


def _best(work: Callable[[], Tensor], times: int = 5) -> float:
    work()
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def computed(dtype: str) -> str:
    """The name of a dtype; of ``auto`` what a server computes in here for weights in bfloat16."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def measure(model: Path, dtype: str) -> Machine:
    """Read rate of memory far larger than the caches, and the product of a 512-token batch with square weights.

    dtype: as of :func:`computed`.
    """
    big = torch.ones(128 * 2**20, dtype=torch.float32)
    read = big.numel() * 4 / _best(lambda: big.sum())
    side, rows = 2048, 512
    left, right = (torch.randn(n, side).to(getattr(torch, computed(dtype))) for n in (rows, side))
    flops = 2 * rows * side * side / _best(lambda: torch.nn.functional.linear(left, right))
    weights = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    return Machine(
        torch.get_num_threads(),
        round(read / 1e9, 1),
        round(flops / 1e9, 1),
        round(weights / 1e6, 1),
        round(1e3 * weights / read, 2),
    )
