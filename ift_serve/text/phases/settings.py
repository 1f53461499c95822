"""Phase settings of one request: markers, budget, closing message, and where markers count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, TypeVar

from ift_serve.text.phases.matcher import PatternMatcher
from ift_serve.text.phases.thought_markers import ThoughtMarkers

_T = TypeVar("_T")


class Phase(Enum):
    """What a sequence is writing."""

    THOUGHT = "thought"
    ANSWER = "answer"


class Channel(Enum):
    """Where a token belongs. Markers belong to neither of the two channels that are shown."""

    REASONING = "reasoning"
    ANSWER = "answer"
    MARKER = "marker"


class ThoughtStart(Enum):
    """How the first thought of a turn begins where the prompt has not opened one.

    ``FREE``: the model may open one. ``FORCED``: the opening marker is written for it. ``IMPLICIT``: its first token
    is thought already, as with models that write nothing but the closing marker.
    """

    FREE = "free"
    FORCED = "forced"
    IMPLICIT = "implicit"


class PhaseError(ValueError):
    """Settings that cannot be; ``field`` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class PerPhase(Generic[_T]):
    """A parameter that may differ by phase, such as a temperature; None inherits."""

    thought: _T | None = None
    answer: _T | None = None

    def choose(self, phase: Phase, inherited: _T) -> _T:
        """The value in a phase."""
        own = self.thought if phase is Phase.THOUGHT else self.answer
        return inherited if own is None else own


@dataclass(frozen=True, slots=True)
class PhaseSettings:
    """The phases of one request. Immutable; shared by all its sequences.

    ``budget``: thought tokens of one turn, over all its thoughts; None: any number. ``total_budget``: thought tokens of
    all turns in the sequence, those in its prompt too, as far as its segments tell turns apart. ``minimum``: thought
    tokens before a thought may be closed. ``closing``: ids that close a thought by force, with a closing marker in
    them (empty: the marker alone). ``markers_anywhere``: whether a marker counts in the middle of an answer, or is
    text there; None: it counts if no typed text can be mistaken for it.

    Raises PhaseError.
    """

    markers: ThoughtMarkers
    budget: int | None = None
    total_budget: int | None = None
    minimum: int = 0
    closing: tuple[int, ...] = ()
    start: ThoughtStart = ThoughtStart.FREE
    markers_anywhere: bool | None = None
    after: tuple[int, ...] = field(init=False)
    """The ids of ``closing`` that follow the marker."""
    _overlaps: PatternMatcher = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("budget", "total_budget", "minimum"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise PhaseError(name, f"is {value}; must be 0 or more")
        for name in ("budget", "total_budget"):
            value = getattr(self, name)
            if value is not None and value < self.minimum:
                raise PhaseError("minimum", f"is {self.minimum}, more than the {name} of {value}")
        if not self.closing:
            object.__setattr__(self, "closing", self.markers.closing[0].token_ids)
        if self.markers_anywhere is None:
            object.__setattr__(self, "markers_anywhere", self.markers.are_control_tokens)
        object.__setattr__(self, "after", self.closing[self._closing_place() + 1 :])
        object.__setattr__(self, "_overlaps", PatternMatcher([self.closing]))

    def _closing_place(self) -> int:
        """Where in the closing ids the marker is complete. Raises PhaseError unless there is exactly one."""
        watch = self.markers.watch(opening=True, closing=True)
        node, places = 0, []
        for place, token_id in enumerate(self.closing):
            for symbol in self.markers.symbols(token_id):
                node = watch.matcher.step(node, symbol)
                if watch.found(node) is not None:
                    if not watch.closes(node):
                        raise PhaseError("closing", "opens a thought")
                    places.append(place)
                    node = 0
        if len(places) != 1:
            raise PhaseError("closing", f"has {len(places)} closing markers; must have one")
        return places[0]

    def overlap(self, known: int, token_id: int) -> int:
        """How many ids of ``closing`` the sequence ends with after one more, if it ended with ``known`` before."""
        if not known and token_id != self.closing[0]:
            return 0
        return self._overlaps.step(known, token_id)

    def capped(self, budget: int | None) -> PhaseSettings:
        """The settings under an operator's cap on thought tokens, which a request can only lower."""
        if budget is None or (self.budget is not None and self.budget <= budget):
            return self
        return replace(self, budget=budget, minimum=min(self.minimum, budget))
