"""Reasoning settings, and the conclusion of an answer. None stands for the server's default everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["", "stop", "eos", "length", "cancelled", "deadline"]


@dataclass(frozen=True, slots=True)
class EntropyExit:
    """End a thought once the entropy behind it has settled (EAT, arXiv 2509.26522). ``threshold``: square nats.

    ``prompt``: text that follows the closing marker before the model is asked.
    """

    threshold: float | None = None
    smoothing: float | None = None
    least_probes: int = 0
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class ConfidenceExit:
    """End a thought once a trial answer of at most ``trial_tokens`` is confident (DEER, arXiv 2504.15895).

    ``prompt``: text that follows the closing marker before the model is asked.
    """

    threshold: float | None = None
    trial_tokens: int | None = None
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class NoReasoning:
    """Every candidate is drawn by itself, and opens no thought (see the message Reasoning)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Think, then answer. ``budget``: tokens of thought, exactly; ``message``: forced where the budget ends it.

    ``open_marker`` and ``close_marker`` are given together, or are those of the model.
    """

    budget: int | None = None
    minimum: int = 0
    message: str = ""
    open_marker: str = ""
    close_marker: str = ""
    early_exit: EntropyExit | ConfidenceExit | None = None


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """How the answer is found in a text. ``pattern``: RE2 syntax; ``prompt``: what the kind continuation appends."""

    kind: Literal["number", "option", "last_line", "pattern", "continuation"] | None = None
    pattern: str = ""
    prompt: str = ""
    options: str = ""
    continuation_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """Chain-of-thought decoding (arXiv 2402.10200) over the ``width`` most likely first tokens."""

    width: int | None = None
    aggregate: Literal["max", "sum"] | None = None
    uncertain_below: float = 0.0
    span: AnswerSpan | None = None


@dataclass(frozen=True, slots=True)
class LowConfidence:
    """Samples end early that fall below what the share ``keep`` of the first ``warm_up`` had over ``window`` tokens."""

    warm_up: int | None = None
    keep: float | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """Self-consistency: several samples, and the answer that most agree on."""

    samples: int | None = None
    weight: Literal["majority", "borda", "confidence"] | None = None
    power: float | None = None
    stop: Literal["all", "settled", "posterior"] | None = None
    confidence: float | None = None
    low_confidence: LowConfidence | None = None
    span: AnswerSpan | None = None
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class BestOf:
    """The best of several samples."""

    samples: int | None = None
    by: Literal["log_prob", "adherence"] | None = None
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Auto:
    """None, trace or branch, as the adapter's classifier of instructions says."""

    trace: Trace | None = None
    branch: Branch | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """A strategy that another package has registered on the server; ``settings``: what JSON can carry."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


Reasoning = NoReasoning | Trace | Branch | Vote | BestOf | Auto | Registered


@dataclass(frozen=True, slots=True)
class AppliedReasoning:
    """How an answer was reasoned about: defaults filled in, and under the operator's caps."""

    settings: Reasoning
    max_total_tokens: int


@dataclass(frozen=True, slots=True)
class BranchSummary:
    """One of the sequences that were compared. ``confidence``: what it was ranked by; ``votes``: its weight."""

    answer: str
    confidence: float
    votes: float
    tokens: int
    finish_reason: FinishReason
    chosen: bool


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What was decided, and on what grounds. ``mode``: the strategy that answered; for auto, what it chose."""

    mode: str
    answer: str
    confidence: float
    branches: tuple[BranchSummary, ...] = ()
