"""Rules for every sequence of a request: its phases, its stop strings, the length of its answer."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.requirements import decoder_of, invalid
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.reasoning import Trace
from ift_serve.text.phases import MarkerPair, PerPhase, Phase, PhaseError, PhaseSettings, PhaseState, ThoughtStart
from ift_serve.text.token_texts import TokenDecoder

_REST_OF_CHARACTER = 3
"""Tokens that a thought may go on past its budget, to end on a whole character."""
_FIELDS = {"minimum": "minimum", "closing_message": "message", "closing": "message"}


@dataclass(frozen=True)
class SequenceRules:
    """``start``: the phases before the first token; None where the model has none that are known.

    ``answer_limit``: tokens of an answer behind a thought; None where only the engine's limit holds.
    ``extra_tokens``: what thought and markers take beside the answer. ``temperature``: that of an answer;
    ``thought_temperature``: that of a thought, None where it is the same.
    """

    decoder: TokenDecoder
    start: PhaseState | None
    stop: tuple[str, ...] = ()
    answer_limit: int | None = None
    extra_tokens: int = 0
    temperature: float = 0.0
    thought_temperature: float | None = None

    @property
    def first_temperature(self) -> float:
        """The temperature of the first draw."""
        return self.temperature if self.start is None else self.temperature_in(self.start.phase)

    @property
    def first_forbidden(self) -> tuple[int, ...] | None:
        """What the first draw must leave alone beside ends; None: nothing."""
        return None if self.start is None else forbidden_in(self.start)

    def temperature_in(self, phase: Phase) -> float:
        """The temperature of draws in a phase."""
        return PerPhase(thought=self.thought_temperature).choose(phase, self.temperature)

    @classmethod
    def of(cls, request: GenerateRequest, context: StrategyContext, trace: Trace | None, path: str) -> SequenceRules:
        """The rules of one request. ``path``: the field that holds ``trace``. Raises RefusedError."""
        decoder = decoder_of(context)
        settings = _phases(context, trace, path)
        start = None
        if settings is not None:
            start = PhaseState.begin(settings, request.token_ids, request.segment_ids)
        sampling = request.sampling
        temperatures = (sampling.temperature, sampling.reasoning_temperature)
        stop = tuple(request.stop)
        if trace is None or settings is None:
            return cls(decoder, start, stop, None, 0, *temperatures)
        markers = len(settings.markers.opening[0].token_ids) + len(settings.closing)
        extra = trace.budget + markers + _REST_OF_CHARACTER
        return cls(decoder, start, stop, sampling.max_new_tokens, extra, *temperatures)


def forbidden_in(state: PhaseState) -> tuple[int, ...] | None:
    """What the next draw must leave alone beside tokens that end; None: nothing, ends included."""
    return None if state.may_end else state.forbidden


def _phases(context: StrategyContext, trace: Trace | None, path: str) -> PhaseSettings | None:
    """As the server process has them: the model's where no thought is asked for, else one that begins at once."""
    builder = context.phases
    if trace is None:
        try:
            return None if builder is None or builder.pair is None else builder.settings()
        except PhaseError:
            return None
    if builder is None:
        raise invalid(path, "the model has no tokenizer that tells tokens' texts")
    pair = MarkerPair(trace.open_marker, trace.close_marker) if trace.open_marker or trace.close_marker else None
    try:
        return builder.settings(
            pair=pair,
            budget=trace.budget,
            minimum=trace.minimum,
            closing_message=trace.message,
            start=ThoughtStart.FORCED,
        )
    except PhaseError as error:
        field = _FIELDS.get(error.field)
        raise invalid(f"{path}.{field}" if field else path, str(error)) from None
