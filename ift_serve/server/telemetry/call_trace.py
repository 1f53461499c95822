"""A call as a trace sees it; and the trace of those that are not recorded. Knows no tracing library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.results import RequestUsage
from ift_serve.engine.protocol.timeline import Timeline

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Generated:
    """What became of one request for tokens. Times are seconds of the monotonic clock.

    ``sent``: when the engine was given it; ``ended``: when its last output was taken. ``tokens``: of its candidates.
    ``reasons``: why candidates ended, in their order.
    """

    request: GenerateRequest
    model: str
    sent: float
    ended: float
    usage: RequestUsage
    timeline: Timeline | None
    tokens: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one request for scores; a long text is scored in several ``windows``."""

    model: str
    sent: float
    ended: float
    adapter: str
    prompt_tokens: int
    cached_tokens: int
    queue_seconds: float
    windows: int


class CallTrace:
    """What a call tells of itself. This one tells nobody: it stands for every call that is not recorded."""

    is_recorded = False
    trace_id = ""
    """32 hexadecimal digits, for the log; empty where the call is not recorded."""

    def generated(self, generated: Generated) -> None:
        """Tokens were generated, or could not be."""

    def scored(self, scored: Scored) -> None:
        """Texts were scored."""

    def end(self, code: str, request_id: str, caller: str) -> None:
        """The call is over, with the name of its status code."""


NOT_RECORDED = CallTrace()


class Tracing:
    """Begins the traces of calls. This one records none."""

    def begin(self, method: str, metadata: Metadata, arrival: float) -> CallTrace:
        """A call of ``method`` (``package.Service/Method``) came at this time of the monotonic clock."""
        return NOT_RECORDED
