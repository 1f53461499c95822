"""Outputs of a request after a step: the new tokens of its candidates, or its scores."""

from __future__ import annotations

from ift_serve.engine.core.request import Generation, Scoring
from ift_serve.engine.protocol.generate import CandidateOutput, TokenStatistics
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.protocol.score import ScoreOutput
from ift_serve.engine.protocol.timeline import Timeline
from ift_serve.engine.sequences.sequence import Sequence

_LARGE = 2048
"""Tokens and alternatives of a request after which they go out although their reader waits for the whole answer: one
message with all of a large answer would hold up both processes."""


def _unsent_entries(request: Generation) -> int:
    return sum(len(sequence.statistics) for sequence in request.unsent) * (1 + request.sampling.top_logprobs)


def _tells_of_first(request: Generation) -> bool:
    """Whether the first token is told of at once: who leaves later has a trace of the request until then."""
    return request.timeline is not None and not request.counted_first


def _timeline(request: Generation) -> Timeline | None:
    return None if request.timeline is None else request.timeline.timeline()


def candidate_outputs(request: Generation) -> list[CandidateOutput]:
    """The unsent tokens of every candidate that has any; empties the request's ``unsent`` list."""
    finished = request.done
    if request.whole and not finished and _unsent_entries(request) < _LARGE and not _tells_of_first(request):
        return []
    unsent, request.unsent = request.unsent, []
    if not unsent:
        return [_closing(request)] if finished and not request.suppress_output else []
    usage = request.usage() if finished or not request.counted_first else None
    request.counted_first = True
    outputs = []
    last = len(unsent) - 1
    for index, sequence in enumerate(unsent):
        carries = usage is not None and (index == last if finished else index == 0)
        token_ids, statistics, top_log_probs = _unsent(sequence, request)
        if sequence.ended is not None:
            request.told_ends.add(sequence.candidate)
        outputs.append(
            CandidateOutput(
                request_id=request.request_id,
                candidate=sequence.candidate,
                token_ids=token_ids,
                statistics=statistics,
                top_log_probs=_asked_for(top_log_probs, request.sampling.top_logprobs),
                finish_reason=sequence.ended,
                request_finished=finished and index == last,
                usage=usage if carries else None,
                conclusion=request.conclusion if finished and index == last else None,
                timeline=_timeline(request) if finished and index == last else None,
            )
        )
    return outputs


def _asked_for(alternatives: list[list[tuple[int, float]]], count: int) -> list[list[tuple[int, float]]]:
    """As many as the caller wants; a strategy may have wanted more."""
    return [entry[:count] for entry in alternatives] if count else []


def _unsent(
    sequence: Sequence, request: Generation
) -> tuple[list[int], list[TokenStatistics], list[list[tuple[int, float]]]]:
    """Tokens since the last output. Statistics are handed over; ``record`` keeps what strategies need."""
    first = sequence.prompt_length + sequence.sent
    token_ids = sequence.tokens[first:]
    sequence.sent += len(token_ids)
    statistics, sequence.statistics = sequence.statistics, []
    top_log_probs, sequence.top_log_probs = sequence.top_log_probs, []
    return token_ids, statistics, top_log_probs


def _closing(request: Generation) -> CandidateOutput:
    """Ends a request that has nothing more to say; its candidate may have ended before its hidden sequences did."""
    reason = None if 0 in request.told_ends else request.finish_reason or FinishReason.STOP
    return CandidateOutput(
        request_id=request.request_id,
        candidate=0,
        token_ids=[],
        statistics=[],
        finish_reason=reason,
        request_finished=True,
        usage=request.usage(),
        conclusion=request.conclusion,
        timeline=_timeline(request),
    )


def score_output(request: Scoring) -> ScoreOutput:
    """All scores of a finished request."""
    return ScoreOutput(request_id=request.request_id, scores=request.scores, usage=request.usage())
