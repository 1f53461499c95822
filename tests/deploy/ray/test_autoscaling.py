"""How many replicas queues and caches ask for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ift_serve.deploy.ray.autoscaling import QueueAndCache, reported
from ift_serve.engine.protocol.stats import EngineStats


def wanted(requests: list[float], cache: list[float], *, now: int = 2) -> int:
    metrics: dict[str, dict[Any, float]] = {
        "ift_requests": dict(enumerate(requests)),
        "ift_cache_use": dict(enumerate(cache)),
    }
    context = SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=now)
    return QueueAndCache(target_requests=10, target_cache=0.8)(context)[0]


@pytest.mark.parametrize(
    ("requests", "cache", "replicas"),
    [
        ([0, 0], [0.0, 0.0], 1),
        ([10, 10], [0.1, 0.1], 2),
        ([21, 0], [0.1, 0.1], 3),  # one that has too much is a call for another, whoever has it
        ([1, 1], [0.9, 0.9], 3),  # few requests, but their contexts fill the caches
        ([95, 5], [1.0, 1.0], 10),
        ([8, 1], [0.5, 0.2], 1),
    ],
)
def test_both_are_brought_to_their_targets(requests: list[float], cache: list[float], replicas: int) -> None:
    assert wanted(requests, cache) == replicas


def test_without_reports_nothing_changes() -> None:
    assert wanted([], [], now=3) == 3


def test_blocks_that_hold_only_reusable_prefixes_are_not_in_use() -> None:
    stats = EngineStats(waiting=3, running=4, total_blocks=100, free_blocks=30, cached_blocks=50)
    assert reported(stats) == {"ift_requests": 7.0, "ift_cache_use": pytest.approx(0.2)}
    assert reported(EngineStats())["ift_cache_use"] == 0.0, "before the first step"
