"""How many replicas there should be, by the engines' queues and caches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ift_serve.engine.protocol.stats import EngineStats

REQUESTS, CACHE = "ift_requests", "ift_cache_use"
POLICY = "ift_serve.deploy.ray.autoscaling:QueueAndCache"
"""Import path for Ray's ``policy_function``."""


def reported(stats: EngineStats) -> dict[str, float]:
    """What a replica says of itself: requests waiting and sequences running, and the share of its cache in use."""
    free = stats.free_blocks + stats.cached_blocks
    use = 1 - free / stats.total_blocks if stats.total_blocks else 0.0
    return {REQUESTS: float(stats.waiting + stats.running), CACHE: use}


class QueueAndCache:
    """Ray's policy: as many replicas as bring both to their targets. Ray applies bounds and delays.

    ``target_requests``: waiting and running, a replica; ``target_cache``: share of its blocks in use.
    """

    def __init__(self, target_requests: float, target_cache: float) -> None:
        self._targets = {REQUESTS: target_requests, CACHE: target_cache}

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number, and no state. Where no replica has reported yet, what there is stays."""
        metrics: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
        wanted = [
            math.ceil(sum(metrics[name].values()) / target - 1e-9)
            for name, target in self._targets.items()
            if metrics.get(name)
        ]
        return (max(1, *wanted) if wanted else context.target_num_replicas), {}
