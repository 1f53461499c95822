"""How an answer is reasoned about, in JSON: the client's settings by kind, and OpenAI's efforts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from ift_serve.client import (
    Auto,
    BestOf,
    Branch,
    ConfidenceExit,
    EntropyExit,
    NoReasoning,
    Reasoning,
    Registered,
    Trace,
    Vote,
)
from ift_serve.gateway.errors import invalid

_LONGEST_SETTINGS = 16384
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
_BUDGETS: dict[str, int | None] = {"minimal": 64, "low": 256, "medium": None, "high": 4096, "xhigh": 16384}
"""Tokens of thought; None: the server's own default, which it shortens to what the context leaves."""


@dataclass(frozen=True, slots=True)
class _EarlyExit:
    """When a thought ends early: one of two rules, which share names of fields and so are told apart by their own."""

    entropy: EntropyExit | None = None
    confidence: ConfidenceExit | None = None


@dataclass(frozen=True, slots=True)
class _Trace(Trace):
    early_exit: _EarlyExit | None = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class _Vote(Vote):
    trace: _Trace | None = None


@dataclass(frozen=True, slots=True)
class _BestOf(BestOf):
    trace: _Trace | None = None


@dataclass(frozen=True, slots=True)
class _Auto(Auto):
    trace: _Trace | None = None


class ReasoningFields(BaseModel):
    """Exactly one of them, such as ``{"trace": {"budget": 256}}``; the names and values are the Python client's."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    none: NoReasoning | None = None
    trace: _Trace | None = None
    branch: Branch | None = None
    vote: _Vote | None = None
    best_of: _BestOf | None = None
    auto: _Auto | None = None
    registered: Registered | None = None

    def settings(self) -> Reasoning:
        """As the client takes them. Raises ApiError."""
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise invalid("reasoning", f"must hold exactly one of {', '.join(type(self).model_fields)}")
        if self.registered is not None and len(msgspec.json.encode(self.registered.settings)) > _LONGEST_SETTINGS:
            raise invalid("reasoning.registered.settings", f"has more than {_LONGEST_SETTINGS} bytes")
        settings: Reasoning = _settings(getattr(self, given[0]), f"reasoning.{given[0]}")
        return settings


def _settings(given: Any, path: str) -> Any:
    """The client's own types in place of those that are read here."""
    if isinstance(given, _EarlyExit):
        if (given.entropy is None) == (given.confidence is None):
            raise invalid(path, "must hold one of entropy and confidence")
        return given.entropy or given.confidence
    if not dataclasses.is_dataclass(given) or not isinstance(given, _Trace | _Vote | _BestOf | _Auto):
        return given
    own: Any = type(given).__mro__[1]
    values = {field.name: getattr(given, field.name) for field in dataclasses.fields(own)}
    return own(**{name: _settings(value, f"{path}.{name}") for name, value in values.items()})


def of_effort(effort: Effort, context_length: int) -> Reasoning:
    """A thought as long as the effort says, at most half of the context; `none` opens no thought."""
    if effort == "none":
        return NoReasoning()
    budget = _BUDGETS[effort]
    return Trace(budget=None if budget is None else min(budget, context_length // 2))


def within(settings: Reasoning, most: int, *, chosen: bool) -> tuple[Reasoning, int]:
    """The settings with thought and answer in ``most`` tokens together, and what that leaves for the answer.

    ``chosen``: whether the caller has chosen the thought's budget, which is then kept. Raises ApiError.
    """
    trace = settings if isinstance(settings, Trace) else getattr(settings, "trace", None)
    if trace is None and not isinstance(settings, Auto):
        return settings, most
    trace = trace or Trace()
    budget = trace.budget
    if budget is None or not chosen:
        budget = min(most // 2, budget if budget is not None else 1024)
    if budget >= most:
        raise invalid("max_completion_tokens", f"is {most}, which the thought's budget of {budget} uses up")
    trace = dataclasses.replace(trace, budget=budget, minimum=min(trace.minimum, budget))
    if isinstance(settings, Trace):
        return trace, most - budget
    return dataclasses.replace(settings, trace=trace), most - budget  # type: ignore[type-var, arg-type]
