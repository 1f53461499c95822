"""Metrics by the names that endpoint pickers of the Kubernetes gateway API's inference extension know.

Model server protocol of that project (proposal 003), as the core metrics extractor of llm-d reads it for the engine
type ``vllm``, which is its default.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ift_serve.frontend.engine_client import BaseEngineClient

_LABELS = ["max_lora", "running_lora_adapters", "waiting_lora_adapters"]


class PickerCollector(Collector):
    """Queue, running requests, use of the cache, its shape, and which adapters are where."""

    def __init__(self, engine: BaseEngineClient) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        load, model = self._engine.stats, self._engine.model
        used = load.total_blocks - load.free_blocks - load.cached_blocks
        for name, description, value in (
            ("vllm:num_requests_waiting", "Requests waiting for the engine", load.waiting),
            ("vllm:num_requests_running", "Requests that the engine computes", load.running_requests),
            ("vllm:kv_cache_usage_perc", "Used share of the cache blocks, 0 to 1", used / max(1, load.total_blocks)),
        ):
            family = GaugeMetricFamily(name, description, labels=["model_name"])
            family.add_metric([model.name], float(value))
            yield family
        shape = GaugeMetricFamily(
            "vllm:cache_config_info", "Shape of the cache", labels=["block_size", "num_gpu_blocks"]
        )
        shape.add_metric([str(model.block_size), str(model.total_blocks)], 1.0)
        yield shape
        yield self._adapters()

    def _adapters(self) -> Metric:
        """Names as requests give them. Running: in a slot of the device; waiting: asked for, at most ``max_lora``."""
        load, most = self._engine.stats, self._engine.config.adapter_slots
        resident = set(load.resident_adapters)
        running = _names(key for key in (*load.adapter_users, *load.resident_adapters) if key in resident)
        waiting = [name for name in _names(load.adapter_users) if name not in running]
        family = GaugeMetricFamily("vllm:lora_requests_info", "Adapters by where they are; value: now", labels=_LABELS)
        family.add_metric([str(most), ",".join(running), ",".join(waiting[:most])], time.time())
        return family


def _names(keys: Iterable[str]) -> list[str]:
    """Of ``name@version`` keys, each once, in their order."""
    return list(dict.fromkeys(key.partition("@")[0] for key in keys))
