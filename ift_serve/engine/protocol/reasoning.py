"""Reasoning settings: one struct for each decoding strategy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

import msgspec

ExitRule = Literal["entropy", "confidence"]
BranchAggregate = Literal["max", "sum"]
VoteWeight = Literal["majority", "borda", "confidence"]
VoteStop = Literal["all", "settled", "posterior"]
BestOfMeasure = Literal["log_prob", "adherence"]

EXIT_THRESHOLDS: Mapping[ExitRule, float] = MappingProxyType({"entropy": 1e-3, "confidence": 0.95})
"""Of each rule of an early exit, where none is given: in square nats, and as a probability."""


class AnswerKind(StrEnum):
    """Where the answer stands in a text: see ``ift_serve.checks.extraction``."""

    NUMBER = "number"
    OPTION = "option"
    LAST_LINE = "last_line"
    PATTERN = "pattern"
    CONTINUATION = "continuation"


class AnswerSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer is found.

    ``pattern``: RE2 syntax, the first group of its last match, or all of the match, is the answer. ``options``: the
    letters that are options. ``prompt``: for ``CONTINUATION``, what is appended so that the model states its answer,
    in at most ``continuation_tokens``.
    """

    kind: AnswerKind = AnswerKind.NUMBER
    pattern: str = ""
    options: str = "ABCDE"
    continuation_tokens: int = 32
    prompt: str = "So the answer is"


class EarlyExit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a thought ends before its budget.

    ``rule``: "entropy" (EAT, arXiv 2509.26522: the variance of the entropy after the closing marker, an exponential
    mean with ``smoothing``, falls below ``threshold``) or "confidence" (DEER, arXiv 2504.15895: the mean greatest
    probability of a trial answer of at most ``trial_tokens`` is at least ``threshold``). Asked at ends of paragraphs.
    ``least_probes``: how often it is asked before the variance counts, 0: ``4 / smoothing``. ``prompt``: text that
    follows the closing marker before the model is asked, such as "Final answer:".
    """

    rule: ExitRule = "entropy"
    threshold: float = 0.0
    smoothing: float = 0.2
    trial_tokens: int = 20
    least_probes: int = 0
    prompt: str = ""


class Trace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="trace"):
    """Think, then answer.

    ``budget``: tokens of thought, exactly; ``minimum``: the closing marker is not drawn before; ``message``: text that
    is forced before the closing marker where the budget ends the thought. ``open_marker``, ``close_marker``: empty:
    those of the chat template.
    """

    budget: int = 1024
    minimum: int = 0
    message: str = ""
    open_marker: str = ""
    close_marker: str = ""
    early_exit: EarlyExit | None = None


class Branch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="branch"):
    """Chain-of-thought decoding (Wang and Zhou 2024, arXiv 2402.10200).

    ``width``: first tokens that are tried; ``aggregate``: "max" (the path of greatest confidence) or "sum" (the answer
    whose paths' confidences add up to most). ``uncertain_below``: branch at the first position whose p1 - p2 is below
    it instead of at the first token; 0: at the first.
    """

    width: int = 10
    aggregate: BranchAggregate = "max"
    uncertain_below: float = 0.0
    span: AnswerSpan = AnswerSpan()


class LowConfidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which samples end early (DeepConf, arXiv 2508.15260).

    The first ``warm_up`` samples run in full; later ones end where the mean confidence of a window of ``window`` tokens
    falls below the percentile of those that ``keep`` (a share) would keep.
    """

    warm_up: int = 4
    keep: float = 0.9
    window: int = 64


class Vote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="vote"):
    """Self-consistency over ``samples`` draws.

    ``weight``: "majority", "borda" with ``power`` over self-certainty (arXiv 2502.18581), or "confidence" (arXiv
    2508.15260). ``stop``: "all" (every sample ends), "settled" (the consensus cannot change any more), or "posterior"
    (the Beta posterior that the leader leads passes ``confidence``, arXiv 2305.11860). ``trace``: each sample thinks
    first.
    """

    samples: int = 8
    weight: VoteWeight = "majority"
    power: float = 0.3
    stop: VoteStop = "posterior"
    confidence: float = 0.95
    low_confidence: LowConfidence | None = None
    span: AnswerSpan = AnswerSpan()
    trace: Trace | None = None


class BestOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="best_of"):
    """The best of ``samples`` draws, by "log_prob" (mean per token) or by the adapter's "adherence" head."""

    samples: int = 4
    by: BestOfMeasure = "log_prob"
    trace: Trace | None = None


class Auto(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="auto"):
    """None, ``trace`` or ``branch``, as the adapter's classifier of instructions says."""

    trace: Trace = Trace()
    branch: Branch = Branch()


class Registered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="registered"):
    """A strategy that another package registers under ``name``; ``settings`` are data that it checks itself."""

    name: str
    settings: dict[str, Any] = {}


Reasoning = Trace | Branch | Vote | BestOf | Auto | Registered


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request may take, whatever its strategy decides. An operator's caps; a request can only lower them.

    ``sequences``: alive at once; ``forks``: made in all; ``total_tokens``: drawn and forced, hidden ones included.
    """

    sequences: int = 64
    forks: int = 1024
    total_tokens: int = 65536
