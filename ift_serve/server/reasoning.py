"""Validation of reasoning settings: every field within its bounds, and under the operator's caps."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from ift_serve.checks.answer_pattern import AnswerPattern, AnswerPatternError
from ift_serve.engine.protocol.reasoning import (
    AnswerKind,
    AnswerSpan,
    Auto,
    BestOf,
    Branch,
    LowConfidence,
    Reasoning,
    Registered,
    RequestLimits,
    Vote,
)
from ift_serve.server.bounds import choice, enum_names, inside, number, short
from ift_serve.server.config import Limits
from ift_serve.server.errors import conflict, invalid
from ift_serve.server.traces import ThoughtRoom
from ift_serve.v1 import reasoning_pb2 as pb

DEFAULT_STRATEGY = "sample"
MOST_SEQUENCES, MOST_BRANCHES = 256, 20
"""Samples of one request; first tokens, of which the engine tells the most likely."""
_MOST_WINDOW, _MOST_PROMPT, _MOST_CONTINUATION = 4096, 256, 256
_MOST_SETTINGS, _DEEPEST_SETTINGS = 16384, 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_OWN = {DEFAULT_STRATEGY, *(field.name for field in pb.Reasoning.DESCRIPTOR.oneofs_by_name["kind"].fields)}
"""Strategies whose settings are messages, and whose limits are planned by them."""

ANSWER_KINDS = enum_names(pb.AnswerKind.DESCRIPTOR, AnswerSpan().kind)
AGGREGATES = enum_names(pb.BranchAggregate.DESCRIPTOR, Branch().aggregate)
WEIGHTS = enum_names(pb.VoteWeight.DESCRIPTOR, Vote().weight)
STOPS = enum_names(pb.VoteStop.DESCRIPTOR, Vote().stop)
MEASURES = enum_names(pb.BestOfMeasure.DESCRIPTOR, BestOf().by)


def strategy_of(settings: Reasoning | None) -> str:
    """The registered name of the strategy that carries out the settings."""
    if isinstance(settings, Registered):
        return settings.name
    return DEFAULT_STRATEGY if settings is None else str(settings.__struct_config__.tag)


class ReasoningReader:
    """Settings as the engine takes them, under one operator's caps. Everything raises StatusError."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def read(self, message: pb.Reasoning, room: ThoughtRoom) -> Reasoning | None:
        """The settings with defaults filled in; None where nothing is asked for. ``room``: what thoughts may take."""
        kind = message.WhichOneof("kind")
        if kind is None or kind == "none":
            return None
        path, one = f"reasoning.{kind}", getattr(message, kind)
        read: Any = {
            "trace": room.trace,
            "branch": self._branch,
            "vote": lambda path, vote: self._vote(path, vote, room),
            "best_of": lambda path, best_of: self._best_of(path, best_of, room),
            "auto": lambda path, auto: Auto(
                trace=room.trace(f"{path}.trace", auto.trace), branch=self._branch(f"{path}.branch", auto.branch)
            ),
            "registered": _registered,
        }[kind]
        settings: Reasoning = read(path, one)
        return settings

    def limits(self, message: pb.Reasoning, candidates: int) -> RequestLimits:
        """What the request may take: the operator's caps, which it can only lower."""
        total = self._limits.total_tokens
        if message.HasField("max_total_tokens"):
            if not message.max_total_tokens:
                raise invalid("reasoning.max_total_tokens", "is 0, but must be at least 1")
            total = min(total, message.max_total_tokens)
        # A strategy may fork each of its sequences once for a probe.
        alive = max(RequestLimits().sequences, 2 * candidates, 2 * self._limits.width)
        return RequestLimits(sequences=alive, total_tokens=total)

    def _width(self, path: str, message: Message, default: int, most: int = MOST_SEQUENCES) -> int:
        field = path.rsplit(".", 1)[1]
        asked: int = getattr(message, field) if message.HasField(field) else default
        return min(int(number(path, asked, 2, most)), self._limits.width)

    def _branch(self, path: str, branch: pb.Branch) -> Branch:
        return Branch(
            width=self._width(f"{path}.width", branch, Branch().width, MOST_BRANCHES),
            aggregate=choice(f"{path}.aggregate", branch.aggregate, AGGREGATES),
            uncertain_below=number(f"{path}.uncertain_below", branch.uncertain_below, 0, 1),
            span=_span(f"{path}.span", branch.span),
        )

    def _vote(self, path: str, vote: pb.Vote, room: ThoughtRoom) -> Vote:
        default = Vote()
        weight, stop = choice(f"{path}.weight", vote.weight, WEIGHTS), choice(f"{path}.stop", vote.stop, STOPS)
        if vote.HasField("power") and weight != "borda":
            raise conflict([f"{path}.power", f"{path}.weight"], "only the weight borda has a power")
        if vote.HasField("confidence") and stop != "posterior":
            raise conflict([f"{path}.confidence", f"{path}.stop"], "only the stop posterior has a confidence")
        if vote.span.kind == pb.ANSWER_KIND_CONTINUATION:
            raise conflict([f"{path}.span.kind", path], "samples of a vote are not asked for their answers")
        asked = vote.samples if vote.HasField("samples") else default.samples
        samples = self._width(f"{path}.samples", vote, default.samples)
        return Vote(
            samples=samples,
            weight=weight,
            power=number(f"{path}.power", vote.power, 0, 10) if vote.HasField("power") else default.power,
            stop=stop,
            confidence=inside(f"{path}.confidence", vote.confidence, 0.5, 1)
            if vote.HasField("confidence")
            else default.confidence,
            low_confidence=_low_confidence(path, vote.low_confidence, asked, samples)
            if vote.HasField("low_confidence")
            else None,
            span=_span(f"{path}.span", vote.span),
            trace=room.trace(f"{path}.trace", vote.trace) if vote.HasField("trace") else None,
        )

    def _best_of(self, path: str, best_of: pb.BestOf, room: ThoughtRoom) -> BestOf:
        return BestOf(
            samples=self._width(f"{path}.samples", best_of, BestOf().samples),
            by=choice(f"{path}.by", best_of.by, MEASURES),
            trace=room.trace(f"{path}.trace", best_of.trace) if best_of.HasField("trace") else None,
        )


def _low_confidence(path: str, message: pb.LowConfidence, asked: int, samples: int) -> LowConfidence:
    """``asked``: samples before the operator's cap made them ``samples``; the warm-up is lowered with them."""
    default, path, siblings = LowConfidence(), f"{path}.low_confidence", f"{path}.samples"
    warm_up = message.warm_up if message.HasField("warm_up") else min(default.warm_up, samples - 1)
    if warm_up >= asked:
        raise conflict([f"{path}.warm_up", siblings], f"{warm_up} of {asked} samples run in full; none can end early")
    return LowConfidence(
        warm_up=min(int(number(f"{path}.warm_up", warm_up, 1, MOST_SEQUENCES)), samples - 1),
        keep=inside(f"{path}.keep", message.keep, 0, 1) if message.HasField("keep") else default.keep,
        window=int(number(f"{path}.window", message.window, 1, _MOST_WINDOW))
        if message.HasField("window")
        else default.window,
    )


SPAN_FIELDS = {
    "pattern": "pattern",
    "options": "option",
    "prompt": "continuation",
    "continuation_tokens": "continuation",
}
"""Fields of an answer span that belong to one kind."""


def _span(path: str, message: pb.AnswerSpan) -> AnswerSpan:
    kind, default = choice(f"{path}.kind", message.kind, ANSWER_KINDS), AnswerSpan()
    for field, _ in message.ListFields():
        owner = SPAN_FIELDS.get(field.name, kind)
        if owner != kind:
            raise conflict([f"{path}.{field.name}", f"{path}.kind"], f"only the kind {owner} has {field.name}")
    tokens = message.continuation_tokens if message.HasField("continuation_tokens") else default.continuation_tokens
    return AnswerSpan(
        kind=AnswerKind(kind),
        pattern=_pattern(f"{path}.pattern", message.pattern) if kind == "pattern" else "",
        options=_options(f"{path}.options", message.options or default.options),
        continuation_tokens=int(number(f"{path}.continuation_tokens", tokens, 1, _MOST_CONTINUATION)),
        prompt=short(f"{path}.prompt", message.prompt, _MOST_PROMPT, bytes_=True) or default.prompt,
    )


def _pattern(path: str, pattern: str) -> str:
    try:
        AnswerPattern(pattern)
    except AnswerPatternError as error:
        raise invalid(path, str(error)) from None
    return pattern


def _options(path: str, letters: str) -> str:
    if not (2 <= len(letters) <= 26 and letters.isascii() and letters.isalpha()):
        raise invalid(path, f"is {letters[:40]!r}, but must be 2 to 26 letters")
    if len(set(letters.upper())) < len(letters):
        raise invalid(path, f"{letters!r} names a letter twice")
    return letters


def _registered(path: str, message: pb.Registered) -> Registered:
    if not _NAME.fullmatch(message.name):
        raise invalid(
            f"{path}.name", "must be 1 to 64 letters, digits, '.', '_' and '-', beginning with one of the first"
        )
    if message.name in _OWN:
        raise invalid(f"{path}.name", f"{message.name!r} is no other package's; it has settings of its own")
    if message.settings.ByteSize() > _MOST_SETTINGS:
        size = message.settings.ByteSize()
        raise invalid(f"{path}.settings", f"has {size} bytes; at most {_MOST_SETTINGS}")
    settings: dict[str, Any] = json_format.MessageToDict(message.settings)
    if _depth(settings) > _DEEPEST_SETTINGS:
        raise invalid(f"{path}.settings", f"is nested deeper than {_DEEPEST_SETTINGS} levels")
    return Registered(name=message.name, settings=settings)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
