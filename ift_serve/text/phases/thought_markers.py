"""The markers around thoughts, and what a tokenizer's vocabulary says about finding them in token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ift_serve.text.phases.matcher import PatternMatcher

_FIRST_ID = 256
"""Symbols below are bytes of text; a token that is read as a whole is the symbol ``_FIRST_ID`` + its id."""


@dataclass(frozen=True, slots=True)
class ThoughtMarker:
    """One marker.

    ``pattern``: its symbols, control tokens as wholes and typed text as bytes. ``rests``: for every number of symbols
    that may be there already, the token ids that complete it.
    """

    pattern: tuple[int, ...]
    rests: tuple[tuple[int, ...], ...]

    @classmethod
    def of_ids(cls, *token_ids: int) -> ThoughtMarker:
        """A marker that is exactly these tokens."""
        return cls(
            tuple(_FIRST_ID + token_id for token_id in token_ids),
            tuple(token_ids[place:] for place in range(len(token_ids))),
        )

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The ids of the whole marker."""
        return self.rests[0]

    @property
    def has_control_token(self) -> bool:
        """Whether no typed text can be mistaken for it."""
        return any(symbol >= _FIRST_ID for symbol in self.pattern)


@dataclass(frozen=True)
class ThoughtMarkers:
    """What opens and what closes a thought, for one tokenizer. Immutable; shared by all requests of a model.

    ``pieces``: bytes of the tokens that can be part of a marker that is typed text; any other token is a symbol of its
    own. ``blanks``: tokens that are nothing but white space. ``partial``: bytes of the tokens that begin or end within
    a UTF-8 character.
    """

    opening: tuple[ThoughtMarker, ...]
    closing: tuple[ThoughtMarker, ...]
    pieces: Mapping[int, bytes] = field(default_factory=dict)
    blanks: frozenset[int] = frozenset()
    partial: Mapping[int, bytes] = field(default_factory=dict)
    _watches: tuple[Watch, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.opening or not self.closing:
            raise ValueError("markers: one that opens a thought and one that closes it are needed")
        if any(not marker.pattern for marker in (*self.opening, *self.closing)):
            raise ValueError("markers: one of them is empty")
        if {marker.pattern for marker in self.opening} & {marker.pattern for marker in self.closing}:
            raise ValueError("markers: what opens a thought cannot close it too")
        watches = tuple(Watch(self, opening, closing) for opening in (False, True) for closing in (False, True))
        object.__setattr__(self, "_watches", watches)

    @classmethod
    def of_ids(cls, opening: Sequence[int], closing: Sequence[int], blanks: Sequence[int] = ()) -> ThoughtMarkers:
        """Markers that are exactly these tokens."""
        markers = (ThoughtMarker.of_ids(*opening),), (ThoughtMarker.of_ids(*closing),)
        return cls(*markers, blanks=frozenset(blanks))

    @property
    def are_control_tokens(self) -> bool:
        """Whether no typed text can be mistaken for a marker."""
        return all(marker.has_control_token for marker in (*self.opening, *self.closing))

    def symbols(self, token_id: int) -> Sequence[int]:
        """What the token is to a matcher."""
        piece = self.pieces.get(token_id)
        return (_FIRST_ID + token_id,) if piece is None else piece

    def is_blank(self, token_id: int, start: int = 0, end: int | None = None) -> bool:
        """Whether the bytes ``start .. end-1`` of a token are white space only."""
        piece = self.pieces.get(token_id)
        return token_id in self.blanks if piece is None else not piece[start:end].strip()

    def watch(self, *, opening: bool, closing: bool) -> Watch:
        """The markers that count where either kind does."""
        return self._watches[2 * opening + closing]


class Watch:
    """The markers that count at some place in a sequence, ready to be looked for.

    ``starters``: the only tokens after which part of a marker, or a whole one, may be there if nothing was before.
    """

    def __init__(self, markers: ThoughtMarkers, opening: bool, closing: bool) -> None:
        chosen = (*(markers.opening if opening else ()), *(markers.closing if closing else ()))
        self._markers = markers
        self._all = chosen
        first_closing = len(markers.opening) if opening else 0
        self._closing = range(first_closing, len(chosen))
        self.matcher = PatternMatcher([marker.pattern for marker in chosen])
        whole = {symbol - _FIRST_ID for marker in chosen for symbol in marker.pattern if symbol >= _FIRST_ID}
        self._tokens = sorted(whole.union(markers.pieces)) if chosen else []
        self.starters = frozenset(i for i in self._tokens if self._starts(i))
        self._closers: dict[int, tuple[int, ...]] = {}

    def _starts(self, token_id: int) -> bool:
        node, found = self._run(0, token_id)
        return node > 0 or bool(found)

    def _run(self, node: int, token_id: int) -> tuple[int, set[int]]:
        """Where a token leads, and the markers that it completes."""
        found = set()
        for symbol in self._markers.symbols(token_id):
            node = self.matcher.step(node, symbol)
            found.add(self.matcher.accepted[node])
        return node, found - {-1}

    def found(self, node: int) -> ThoughtMarker | None:
        """The marker that is complete at a node."""
        index = self.matcher.accepted[node]
        return None if index < 0 else self._all[index]

    def closes(self, node: int) -> bool:
        """Whether the marker that is complete at a node closes thoughts."""
        return self.matcher.accepted[node] in self._closing

    def rest(self, node: int) -> tuple[int, ...]:
        """Ids that complete the closing marker that has begun; none if none has."""
        index, depth = self.matcher.partial(node, self._closing)
        return () if index < 0 else self._all[index].rests[depth]

    def closers(self, node: int) -> tuple[int, ...]:
        """The tokens that would complete a closing marker next."""
        known = self._closers.get(node)
        if known is None:
            known = tuple(i for i in self._tokens if not self._run(node, i)[1].isdisjoint(self._closing))
            self._closers[node] = known
        return known
