"""Notes when the sequences of a traced request began and ended. A request that is not traced has none."""

from __future__ import annotations

from collections.abc import Callable

from ift_serve.engine.protocol.timeline import NO_PARENT, SequenceTimes, Timeline
from ift_serve.engine.sequences.sequence import Sequence

_MOST = 64
"""Sequences told of: a trace of thousands of spans is read by nobody."""


class TimelineRecorder:
    """``arrival``: what times are counted from, by ``clock``."""

    def __init__(self, arrival: float, clock: Callable[[], float]) -> None:
        self._arrival = arrival
        self._clock = clock
        self._sequences: list[tuple[Sequence, float]] = []
        self._parents: dict[Sequence, int] = {}
        self._ended: dict[Sequence, float] = {}
        self._left_out = 0
        self._adapter_returned: float | None = None
        self._form_read: float | None = None

    def _now(self) -> float:
        return max(0.0, self._clock() - self._arrival)

    def begin(self, sequence: Sequence) -> None:
        """There is one more sequence."""
        if len(self._sequences) < _MOST:
            self._sequences.append((sequence, self._now()))
        else:
            self._left_out += 1

    def descend(self, child: Sequence, parent: Sequence) -> None:
        """A sequence was forked from another one, with tokens of it."""
        self._parents[child] = parent.ordinal

    def end(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self._ended[sequence] = self._now()

    def return_adapter(self) -> None:
        """The adapter is in host memory again."""
        self._adapter_returned = self._now()

    def read_form(self) -> None:
        """The form of the answer has been read."""
        self._form_read = self._now()

    def timeline(self) -> Timeline:
        """What there is to tell so far."""
        return Timeline(
            sequences=[self._times(sequence, began) for sequence, began in self._sequences],
            left_out=self._left_out,
            adapter_returned=self._adapter_returned,
            form_read=self._form_read,
        )

    def _times(self, sequence: Sequence, began: float) -> SequenceTimes:
        return SequenceTimes(
            ordinal=sequence.ordinal,
            began=began,
            parent=self._parents.get(sequence, NO_PARENT),
            candidate=sequence.candidate,
            is_probe=sequence.is_probe,
            tokens=0 if sequence.is_probe else max(0, len(sequence.tokens) - sequence.prompt_length),
            ended=self._ended.get(sequence),
            reason=sequence.ended,
        )
