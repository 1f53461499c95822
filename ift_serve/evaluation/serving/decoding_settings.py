"""Decoding settings: adapter, sampling and reasoning, under the names that callers and lm-eval use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ift_serve.client import AdaptiveTemperature, Reasoning, TargetProbability
from ift_serve.evaluation.serving.reasoning_settings import described, read_reasoning
from ift_serve.v1 import inference_pb2 as pb

_SAMPLING = frozenset(found.name for found in pb.Sampling.DESCRIPTOR.fields) - {"seed", "n"}
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""lm-eval's names of one setting; the first that is given counts."""
_TEMPERATURES = {"adaptive": AdaptiveTemperature, "target_probability": TargetProbability}
_OWN = {"reasoning", "adapter", "max_total_tokens", "adaptive_temperature", "until", "do_sample", *_LENGTHS}


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """``sampling``: fields of the Sampling message by name; what is missing is the server's default.

    Seeds and repeats are no settings: every request has its own.
    """

    adapter: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    reasoning: Reasoning | None = None
    max_total_tokens: int | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> DecodingSettings:
        """From keyword arguments. Raises ValueError that names a setting that is unknown or wrong.

        A setting that would be passed over changes what is measured, so none is.
        """
        unknown = sorted(set(given) - _SAMPLING - _OWN)
        if unknown:
            raise ValueError(f"{unknown[0]}: no such setting; there are {', '.join(sorted(_SAMPLING | _OWN))}")
        sampling = {name: given[name] for name in _SAMPLING & given.keys() if given[name] is not None}
        if (until := given.get("until")) is not None:
            sampling["stop"] = [until] if isinstance(until, str) else list(until)
        lengths = [given[name] for name in _LENGTHS if given.get(name) is not None]
        if lengths:
            sampling["max_new_tokens"] = int(lengths[0])
        if given.get("do_sample") is False:
            sampling["temperature"] = 0.0
        if (adaptive := given.get("adaptive_temperature")) is not None:
            sampling["adaptive"] = adaptive
        for name, kind in _TEMPERATURES.items():
            if name in sampling:
                sampling[name] = _temperature(name, kind, sampling[name])
        total = given.get("max_total_tokens")
        return cls(
            str(given.get("adapter") or ""),
            {name: value for name, value in sampling.items() if value is not None},
            read_reasoning(given.get("reasoning")),
            None if total is None else int(total),
        )

    def over(self, base: DecodingSettings) -> DecodingSettings:
        """These settings, and those of ``base`` where these say nothing."""
        return DecodingSettings(
            self.adapter or base.adapter,
            base.sampling | self.sampling,
            self.reasoning if self.reasoning is not None else base.reasoning,
            self.max_total_tokens if self.max_total_tokens is not None else base.max_total_tokens,
        )

    def with_adapter(self, adapter: str) -> DecodingSettings:
        """The same of another adapter."""
        return replace(self, adapter=adapter)

    @property
    def is_greedy(self) -> bool:
        """Whether the same prompt has the same answer whatever the seed."""
        return self.sampling.get("temperature") == 0 and self.reasoning is None

    def described(self) -> dict[str, Any]:
        """Plain values that name these settings completely."""
        return {
            "adapter": self.adapter,
            "sampling": {name: _plain(value) for name, value in sorted(self.sampling.items())},
            "reasoning": None if self.reasoning is None else described(self.reasoning),
            "max_total_tokens": self.max_total_tokens,
        }


def _temperature(name: str, kind: type[Any], value: object) -> Any:
    if value is False:
        return None
    if isinstance(value, kind):
        return value
    if name == "adaptive" and value is True:
        value = {}
    elif name == "adaptive" and isinstance(value, str):
        value = {"rule": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: give an object with fields of {kind.__name__}, not {value!r:.80}")
    known = {found.name for found in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - known):
        raise ValueError(f"{name}.{unknown[0]}: no such field; there are {', '.join(sorted(known))}")
    return kind(**value)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in sorted(value.items())}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
