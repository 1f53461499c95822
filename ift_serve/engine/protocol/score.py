"""Messages of scoring: continuations in, their log-probabilities out."""

from __future__ import annotations

import msgspec

from ift_serve.engine.protocol.results import RequestUsage


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="score"):
    """Log-probabilities of each continuation after one shared context (at least one token).

    ``adherence``: the adapter's adherence head judges each continuation too, as the answer to the context.
    """

    request_id: str
    token_ids: list[int]
    continuations: list[list[int]]
    segment_ids: bytes = b""
    adherence: bool = False
    priority: int = 0
    client: str = ""
    adapter: str = ""
    arrival: float = 0.0
    deadline: float | None = None


class ContinuationScore(msgspec.Struct, frozen=True, array_like=True):
    """Sum and parts of log p(continuation | context), and whether greedy decoding would produce it.

    ``adherence``: the probability that it follows the instruction, as the head says; None where it was not asked.
    """

    log_prob: float
    is_greedy: bool
    token_log_probs: list[float]
    adherence: float | None = None


class ScoreOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="scores"):
    """All continuations of one score request, in the order given. Always the last message of its request."""

    request_id: str
    scores: list[ContinuationScore]
    usage: RequestUsage
