"""Sampling parameters that this engine, or the request's adapter, does not support."""

from __future__ import annotations

from collections.abc import Collection

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule

_HEADS = frozenset({"temperature_head", "sequence_temperature"})
_LONGEST_DECAY = 0.99


def sampling_fault(params: SamplingParams, components: Collection[str]) -> tuple[str, str] | None:
    """The field at fault and what is wrong with it, None if nothing is. components: those of the request's adapter."""
    if params.top_n_sigma < 0:
        return "sampling.top_n_sigma", f"{params.top_n_sigma}; at least 0 is needed, which is off"
    if not 0 <= params.top_h <= 1:
        return "sampling.top_h", f"{params.top_h} is outside 0 (off) to 1"
    if params.adaptive is not None and (fault := _temperature_fault(params.adaptive, components)) is not None:
        return f"sampling.adaptive.{fault[0]}", fault[1]
    if params.target_probability is not None and (fault := _target_fault(params.target_probability)) is not None:
        return f"sampling.target_probability.{fault[0]}", fault[1]
    return None


def _temperature_fault(adaptive: AdaptiveTemperature, components: Collection[str]) -> tuple[str, str] | None:
    if not 0 <= adaptive.min <= adaptive.max:
        return "min", f"{adaptive.min} to {adaptive.max} is no range of temperatures"
    if not 0 <= adaptive.greedy_below <= adaptive.max:
        return "greedy_below", f"{adaptive.greedy_below} is outside 0 (off) to {adaptive.max}"
    if not adaptive.scale > 0:
        return "scale", f"{adaptive.scale}; above 0 is needed"
    if adaptive.rule is TemperatureRule.HEAD and _HEADS.isdisjoint(components):
        return "rule", "the request's adapter has no temperature head; name one that has, or choose the rule entropy"
    if adaptive.rule is TemperatureRule.ENTROPY:
        if not 0 < adaptive.base < 1:
            return "base", f"{adaptive.base} is not between 0 and 1"
        if not adaptive.theta > 0:
            return "theta", f"{adaptive.theta}; above 0 is needed"
    return None


def _target_fault(target: TargetProbability) -> tuple[str, str] | None:
    if not 0 <= target.target <= 1:
        return "target", f"{target.target} is no probability"
    if not 0 <= target.decay <= _LONGEST_DECAY:
        return "decay", f"{target.decay} is outside 0 to {_LONGEST_DECAY}"
    return None
