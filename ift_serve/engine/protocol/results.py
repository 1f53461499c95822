"""Finish reasons, usage and failures, common to all kinds of requests."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    """Why a candidate ended. ``STOP`` covers a stop string (found by the server process) and a stop id."""

    STOP = "stop"
    EOS = "eos"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class FailureKind(StrEnum):
    """Why the engine refused or lost a request; the server maps each kind to one gRPC status."""

    INVALID = "invalid"
    OVERLOADED = "overloaded"
    NOT_FOUND = "not_found"
    UNFIT = "unfit"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class RequestFailed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """A request ended without an answer. ``field`` names the offending field where there is one.

    ``usage``: of a traced request, how far it had come.
    """

    request_id: str
    kind: FailureKind
    message: str
    field: str = ""
    retry_after: float = 0.0
    usage: RequestUsage | None = None


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts in tokens, times in seconds since arrival. Sent with a request's first and last outputs.

    ``adapter`` is the version that answers, ``name@version``; empty for the base model. ``drawn_tokens`` and
    ``forced_tokens`` are of all sequences, those that nobody was sent included; ``sequences``: how many there were.
    ``drafted_tokens`` were guessed and computed before they were drawn; ``accepted_tokens``: draws that took no step of
    their own because of that.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    preemptions: int = 0
    adapter: str = ""
    drawn_tokens: int = 0
    forced_tokens: int = 0
    sequences: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
