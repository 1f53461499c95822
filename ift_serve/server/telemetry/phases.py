"""Phases of a request as spans will show them: prepare, queue, prefill, decode, and the sequences of a strategy."""

from __future__ import annotations

from dataclasses import dataclass, field

from ift_serve.engine.protocol.timeline import NO_PARENT, SequenceTimes, Timeline
from ift_serve.server.telemetry.call_trace import Generated, Scored

Attribute = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """``began`` and ``ended``: seconds of the monotonic clock. ``events``: (name, when)."""

    name: str
    began: float
    ended: float
    attributes: dict[str, Attribute] = field(default_factory=dict)
    events: tuple[tuple[str, float], ...] = ()
    children: tuple[Phase, ...] = ()


def attributes_of(generated: Generated) -> dict[str, Attribute]:
    """Of the whole call."""
    request, usage = generated.request, generated.usage
    found: dict[str, Attribute] = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "ift-serve",
        "gen_ai.request.model": generated.model,
        "gen_ai.response.model": usage.adapter or generated.model,
        "gen_ai.request.max_tokens": request.sampling.max_new_tokens,
        "gen_ai.request.choice.count": request.sampling.candidates,
        "gen_ai.usage.input_tokens": len(request.token_ids),
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.output_tokens": generated.tokens,
        "gen_ai.response.finish_reasons": generated.reasons,
        "ift_serve.strategy": request.strategy,
        "ift_serve.drawn_tokens": usage.drawn_tokens,
        "ift_serve.sequences": usage.sequences,
        "ift_serve.preemptions": usage.preemptions,
    }
    if request.adapter:
        found["ift_serve.adapter"] = usage.adapter or request.adapter
    return found


def phases_of(generated: Generated) -> tuple[Phase, ...]:
    """What is known of them: a request that failed before it was computed has been in the queue all the time."""
    request, usage, sent, ended = generated.request, generated.usage, generated.sent, generated.ended
    timeline = generated.timeline or Timeline()
    admitted = _at(request.arrival, usage.queue_seconds, ended)
    first = _at(request.arrival, usage.first_token_seconds, ended)
    phases = [
        Phase("prepare", request.arrival, sent),
        Phase("queue", sent, admitted or ended, events=_waits(timeline, request.arrival)),
    ]
    if admitted is not None:
        cached = {"gen_ai.usage.cache_read.input_tokens": usage.cached_tokens}
        phases.append(Phase("prefill", admitted, first or ended, dict(cached)))
    if first is not None:
        sequences = _sequences(timeline, request.arrival, first, ended, strategy=request.strategy)
        told: dict[str, Attribute] = {"gen_ai.usage.output_tokens": generated.tokens}
        if timeline.left_out:
            told["ift_serve.sequences_left_out"] = timeline.left_out
        phases.append(Phase("decode", first, ended, told, children=sequences))
    return tuple(phases)


def _at(arrival: float, seconds: float, ended: float) -> float | None:
    """When something was, that was so many seconds after the arrival; None where it was not."""
    return min(arrival + seconds, ended) if seconds else None


def _waits(timeline: Timeline, arrival: float) -> tuple[tuple[str, float], ...]:
    told = (("adapter returned", timeline.adapter_returned), ("form read", timeline.form_read))
    return tuple((name, arrival + when) for name, when in told if when is not None)


def _sequences(timeline: Timeline, arrival: float, first: float, ended: float, strategy: str) -> tuple[Phase, ...]:
    """A span for each sequence where there are several: the only one of a plain answer is the phase itself."""
    if len(timeline.sequences) < 2:
        return ()
    return tuple(_sequence(one, arrival, first, ended, strategy) for one in timeline.sequences)


def _sequence(times: SequenceTimes, arrival: float, first: float, ended: float, strategy: str) -> Phase:
    kind = "probe" if times.is_probe else "candidate" if times.candidate >= 0 else "branch"
    attributes: dict[str, Attribute] = {
        "ift_serve.strategy": strategy,
        "ift_serve.sequence.ordinal": times.ordinal,
        "gen_ai.usage.output_tokens": times.tokens,
    }
    if times.parent != NO_PARENT:
        attributes["ift_serve.sequence.parent"] = times.parent
    if times.candidate >= 0:
        attributes["ift_serve.candidate"] = times.candidate
    if times.reason is not None:
        attributes["gen_ai.response.finish_reasons"] = (times.reason.value,)
    began = min(max(arrival + times.began, first), ended)
    over = ended if times.ended is None else min(max(arrival + times.ended, began), ended)
    return Phase(f"{kind} {times.ordinal}", began, over, attributes)


def score_attributes(scored: Scored) -> dict[str, Attribute]:
    """Of the whole call."""
    found: dict[str, Attribute] = {
        "gen_ai.operation.name": "score",
        "gen_ai.provider.name": "ift-serve",
        "gen_ai.request.model": scored.model,
        "gen_ai.usage.input_tokens": scored.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": scored.cached_tokens,
    }
    if scored.adapter:
        found["ift_serve.adapter"] = scored.adapter
    return found


def score_phases(scored: Scored) -> tuple[Phase, ...]:
    """Of a text in windows the first one's wait is told."""
    attributes: dict[str, Attribute] = {
        "ift_serve.windows": scored.windows,
        "ift_serve.queue_seconds": scored.queue_seconds,
    }
    return (Phase("score", scored.sent, scored.ended, attributes),)
