"""Reasoning from plain values: a name such as ``trace:512``, or an object with the fields of a strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ift_serve import client
from ift_serve.client import Reasoning

_STRATEGIES: dict[str, type[Any]] = {
    "none": client.NoReasoning,
    "trace": client.Trace,
    "branch": client.Branch,
    "vote": client.Vote,
    "best_of": client.BestOf,
    "auto": client.Auto,
    "registered": client.Registered,
}
_PARTS: dict[str, tuple[type[Any], ...]] = {
    "early_exit": (client.EntropyExit, client.ConfidenceExit),
    "span": (client.AnswerSpan,),
    "trace": (client.Trace,),
    "branch": (client.Branch,),
    "low_confidence": (client.LowConfidence,),
}
"""Fields that are settings of their own; of several kinds, the first that has all the names is meant."""
_NUMBERS = {"trace": "budget", "branch": "width", "vote": "samples", "best_of": "samples"}
"""What the number behind a name is."""


def read_reasoning(given: object) -> Reasoning | None:
    """``None``, a strategy, ``"vote"``, ``"vote:8"`` or ``{"strategy": "vote", "samples": 8}``. Raises ValueError."""
    if given is None or isinstance(given, tuple(_STRATEGIES.values())):
        return given  # type: ignore[return-value]
    if isinstance(given, str):
        given = _named(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"reasoning: give a name or an object, not {given!r:.80}")
    name = str(given.get("strategy"))
    if name not in _STRATEGIES:
        raise ValueError(f"reasoning.strategy: {name!r:.80} is not one of {', '.join(_STRATEGIES)}")
    fields = {key: value for key, value in given.items() if key != "strategy"}
    return _built(_STRATEGIES[name], fields, f"reasoning.{name}")  # type: ignore[no-any-return]


def _named(text: str) -> dict[str, Any]:
    name, _, number = text.partition(":")
    if not number:
        return {"strategy": name}
    if name not in _NUMBERS or not number.isdigit():
        raise ValueError(f"reasoning: {text!r:.80} is not a name and a number, as trace:512 or vote:8")
    return {"strategy": name, _NUMBERS[name]: int(number)}


def described(reasoning: Reasoning) -> dict[str, Any]:
    """The object that :func:`read_reasoning` reads."""
    name = next(name for name, kind in _STRATEGIES.items() if isinstance(reasoning, kind))
    return {"strategy": name, **dataclasses.asdict(reasoning)}


def _built(kind: type[Any], given: Mapping[str, Any], path: str) -> Any:
    known = {found.name for found in dataclasses.fields(kind)}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"{path}.{unknown[0]}: no such field; there are {', '.join(sorted(known)) or 'none'}")
    return kind(**{name: _part(name, value, path) for name, value in given.items()})


def _part(name: str, value: object, path: str) -> Any:
    if name not in _PARTS or not isinstance(value, Mapping):
        return value
    kinds = _PARTS[name]
    fitting = [kind for kind in kinds if value.keys() <= {found.name for found in dataclasses.fields(kind)}]
    return _built((fitting or kinds)[0], value, f"{path}.{name}")
