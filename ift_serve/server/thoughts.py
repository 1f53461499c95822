"""Thought markers of the model, and the phases of its answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ift_serve.engine.protocol.reasoning import Auto, BestOf, Reasoning, Trace, Vote
from ift_serve.server.errors import conflict
from ift_serve.text.phases import MarkerPair, PhaseBuilder, PhaseError, PhaseSettings, PhaseState, ThoughtStart
from ift_serve.text.prompt import PromptRenderer

_log = logging.getLogger(__name__)
_FIELDS = {
    "closing_message": ("message",),
    "closing": ("message",),
    "minimum": ("minimum", "budget"),
    "markers.opening": ("open_marker",),
    "markers.closing": ("close_marker",),
}
"""The fields of a trace that a setting of its phases stands for."""


def trace_of(settings: Reasoning | None) -> Trace | None:
    """How the candidates think; None where none is asked to."""
    if isinstance(settings, Vote | BestOf | Auto):
        return settings.trace
    return settings if isinstance(settings, Trace) else None


class Thoughts:
    """The phases of one model's answers."""

    def __init__(self, renderer: PromptRenderer) -> None:
        self._builder = PhaseBuilder.of(renderer)
        self.pair: MarkerPair | None = None
        """The model's own markers; None where nothing tells."""
        self._own: PhaseSettings | None = None
        if self._builder.pair is not None:
            try:
                self._own = self._builder.settings()
                self.pair = self._builder.pair
            except PhaseError as error:
                _log.warning("the markers of the model's thoughts are of no use, so none is told apart: %s", error)

    @property
    def opening_ids(self) -> tuple[int, ...]:
        """Control tokens of which each opens a thought by itself, white space behind it apart.

        None where a form of the marker has other tokens: they may be part of an answer too.
        """
        if self._own is None or not self._own.markers.are_control_tokens:
            return ()
        markers = self._own.markers
        forms = [marker.token_ids for marker in markers.opening]
        if not all(markers.is_blank(token_id) for form in forms for token_id in form[1:]):
            return ()
        return tuple(dict.fromkeys(form[0] for form in forms))

    def phases(self, trace: Trace | None, path: str) -> PhaseSettings | None:
        """The phases of a request's candidates; None where the model has none and none is asked for.

        Raises StatusError with the path of what cannot be.
        """
        if trace is None:
            return self._own
        try:
            return self._builder.settings(
                pair=MarkerPair(trace.open_marker, trace.close_marker),
                budget=trace.budget,
                minimum=trace.minimum,
                closing_message=trace.message,
                start=ThoughtStart.FORCED,
            )
        except PhaseError as error:
            fields = _FIELDS.get(error.field, ("open_marker", "close_marker"))
            raise conflict([f"{path}.{field}" for field in fields], error.message) from None


def begin(phases: PhaseSettings | None, prompt: Sequence[int], segment_ids: bytes) -> PhaseState | None:
    """The state before the first token of a candidate; each gets a copy."""
    return None if phases is None else PhaseState.begin(phases, prompt, segment_ids)
