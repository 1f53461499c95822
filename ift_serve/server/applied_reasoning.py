"""What callers are told of how an answer was reasoned about: the effective settings, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from ift_serve.engine.protocol.generate import Conclusion
from ift_serve.engine.protocol.reasoning import (
    AnswerSpan,
    Auto,
    BestOf,
    Branch,
    EarlyExit,
    Reasoning,
    Registered,
    RequestLimits,
    Trace,
    Vote,
)
from ift_serve.server.answers import FINISH_REASONS
from ift_serve.server.reasoning import AGGREGATES, ANSWER_KINDS, MEASURES, STOPS, WEIGHTS
from ift_serve.v1 import inference_pb2
from ift_serve.v1 import reasoning_pb2 as pb


def applied_reasoning(settings: Reasoning | None, limits: RequestLimits) -> pb.Reasoning:
    """Every setting as it is applied."""
    applied = pb.Reasoning(max_total_tokens=limits.total_tokens)
    if settings is None:
        applied.none.SetInParent()
    elif isinstance(settings, Trace):
        applied.trace.CopyFrom(_trace(settings))
    elif isinstance(settings, Branch):
        applied.branch.CopyFrom(_branch(settings))
    elif isinstance(settings, Vote):
        applied.vote.CopyFrom(_vote(settings))
    elif isinstance(settings, BestOf):
        by = _value(MEASURES, settings.by)
        applied.best_of.CopyFrom(pb.BestOf(samples=settings.samples, by=by, trace=_optional_trace(settings.trace)))
    elif isinstance(settings, Auto):
        applied.auto.CopyFrom(pb.Auto(trace=_trace(settings.trace), branch=_branch(settings.branch)))
    else:
        applied.registered.CopyFrom(_registered(settings))
    return applied


def conclusion_message(conclusion: Conclusion) -> inference_pb2.Conclusion:
    """What a strategy decided."""
    message = inference_pb2.Conclusion(mode=conclusion.mode, answer=conclusion.answer, confidence=conclusion.confidence)
    for branch in conclusion.branches:
        message.branches.add(
            answer=branch.answer,
            confidence=branch.confidence,
            votes=branch.votes,
            tokens=branch.tokens,
            finish_reason=FINISH_REASONS[branch.ended]
            if branch.ended is not None
            else inference_pb2.FINISH_REASON_UNSPECIFIED,
            chosen=branch.chosen,
        )
    return message


def _value(names: Mapping[int, str], name: str) -> Any:
    """The enum's value of a name, not the unspecified one."""
    return next(value for value, known in names.items() if value and known == name)


def _trace(trace: Trace) -> pb.Trace:
    return pb.Trace(
        budget=trace.budget,
        minimum=trace.minimum,
        message=trace.message,
        open_marker=trace.open_marker,
        close_marker=trace.close_marker,
        early_exit=None if trace.early_exit is None else _early_exit(trace.early_exit),
    )


def _optional_trace(trace: Trace | None) -> pb.Trace | None:
    return None if trace is None else _trace(trace)


def _early_exit(early_exit: EarlyExit) -> pb.EarlyExit:
    if early_exit.rule == "entropy":
        entropy = pb.EntropyExit(
            threshold=early_exit.threshold, smoothing=early_exit.smoothing, least_probes=early_exit.least_probes
        )
        return pb.EarlyExit(entropy=entropy, prompt=early_exit.prompt)
    confidence = pb.ConfidenceExit(threshold=early_exit.threshold, trial_tokens=early_exit.trial_tokens)
    return pb.EarlyExit(confidence=confidence, prompt=early_exit.prompt)


def _span(span: AnswerSpan) -> pb.AnswerSpan:
    """Only what the kind has: the message is accepted as it is."""
    message = pb.AnswerSpan(kind=_value(ANSWER_KINDS, span.kind))
    if span.kind == "pattern":
        message.pattern = span.pattern
    elif span.kind == "option":
        message.options = span.options
    elif span.kind == "continuation":
        message.prompt, message.continuation_tokens = span.prompt, span.continuation_tokens
    return message


def _branch(branch: Branch) -> pb.Branch:
    return pb.Branch(
        width=branch.width,
        aggregate=_value(AGGREGATES, branch.aggregate),
        uncertain_below=branch.uncertain_below,
        span=_span(branch.span),
    )


def _vote(vote: Vote) -> pb.Vote:
    low = vote.low_confidence
    return pb.Vote(
        samples=vote.samples,
        weight=_value(WEIGHTS, vote.weight),
        power=vote.power if vote.weight == "borda" else None,
        stop=_value(STOPS, vote.stop),
        confidence=vote.confidence if vote.stop == "posterior" else None,
        low_confidence=None if low is None else pb.LowConfidence(warm_up=low.warm_up, keep=low.keep, window=low.window),
        span=_span(vote.span),
        trace=_optional_trace(vote.trace),
    )


def _registered(registered: Registered) -> pb.Registered:
    message = pb.Registered(name=registered.name)
    json_format.ParseDict(registered.settings, message.settings)
    return message
