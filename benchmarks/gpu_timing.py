"""Timing on a GPU: events around many queued launches, beside the rates that the device reaches at best."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

_BURN_CYCLES = 20_000_000
"""About 10 ms during which the launches to be timed queue up, so that the host's gaps are not measured."""


@dataclass(frozen=True)
class Ceilings:
    """Copy (bytes read and written a second) and bf16 matrix product, measured."""

    copy_gb_per_second: float
    gemm_tflops: float


def microseconds(work: Callable[[], object], *, launches: int = 20, rounds: int = 5) -> float:
    """Median time of one call of ``work``, device time only. On the CPU, where only scripts are tried, wall time."""
    work()
    if not torch.cuda.is_available():
        import time

        begun = time.perf_counter()
        work()
        return 1e6 * (time.perf_counter() - begun)
    torch.cuda.synchronize()
    found = list[float]()
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(_BURN_CYCLES)
        begin.record()
        for _ in range(launches):
            work()
        end.record()
        torch.cuda.synchronize()
        found.append(1e3 * begin.elapsed_time(end) / launches)
    return statistics.median(found)


def graphed(work: Callable[[], object]) -> Callable[[], object]:
    """The same work replayed as a CUDA graph, as the engine runs decode steps."""
    if not torch.cuda.is_available():
        return work
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def ceilings() -> Ceilings:
    """Of this device."""
    if not torch.cuda.is_available():
        return Ceilings(1.0, 1.0)
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() / microseconds(lambda: target.copy_(source)) / 1e3
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = 2 * side**3 / microseconds(lambda: a @ b) / 1e6
    return Ceilings(round(copy, 1), round(product, 1))
