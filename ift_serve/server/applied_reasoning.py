"""Effective reasoning settings and conclusions, for responses."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf import json_format

from ift_serve.engine.protocol.generate import Conclusion
from ift_serve.engine.protocol.reasoning import AnswerSpan, EarlyExit, Reasoning, RequestLimits, Vote
from ift_serve.server.answers import FINISH_REASONS
from ift_serve.server.bounds import enum_value
from ift_serve.server.reasoning import AGGREGATES, ANSWER_KINDS, MEASURES, SPAN_FIELDS, STOPS, WEIGHTS
from ift_serve.v1 import inference_pb2
from ift_serve.v1 import reasoning_pb2 as pb

_NAMES = {"kind": ANSWER_KINDS, "aggregate": AGGREGATES, "weight": WEIGHTS, "stop": STOPS, "by": MEASURES}
"""Of the fields that are enums."""


def applied_reasoning(settings: Reasoning | None, limits: RequestLimits) -> pb.Reasoning:
    """Every setting as it is applied. The message is accepted as it is."""
    applied = pb.Reasoning(max_total_tokens=limits.total_tokens)
    if settings is None:
        applied.none.SetInParent()
    else:
        _fill(getattr(applied, str(settings.__struct_config__.tag)), settings)
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


def _fill(message: Any, settings: msgspec.Struct) -> None:
    """Settings into the message of the same fields; what the other settings leave without a meaning stays unset."""
    message.SetInParent()
    if isinstance(settings, EarlyExit):
        message.prompt = settings.prompt
        _fill_fields(getattr(message, settings.rule), settings)
        getattr(message, settings.rule).SetInParent()
    else:
        _fill_fields(message, settings)


def _fill_fields(message: Any, settings: msgspec.Struct) -> None:
    for name in message.DESCRIPTOR.fields_by_name:
        value = getattr(settings, name)
        if value is None or _is_meaningless(settings, name):
            continue
        if isinstance(value, msgspec.Struct):
            _fill(getattr(message, name), value)
        elif isinstance(value, dict):
            json_format.ParseDict(value, getattr(message, name))
        else:
            setattr(message, name, enum_value(_NAMES[name], value) if name in _NAMES else value)


def _is_meaningless(settings: msgspec.Struct, name: str) -> bool:
    """Whether a field belongs to another choice than the one that the settings make."""
    if isinstance(settings, AnswerSpan):
        return SPAN_FIELDS.get(name, settings.kind) != settings.kind
    if isinstance(settings, Vote):
        return (name == "power" and settings.weight != "borda") or (
            name == "confidence" and settings.stop != "posterior"
        )
    return False
