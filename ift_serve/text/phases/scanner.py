"""Cuts the tokens of a sequence into text and markers, as soon as it is certain which is which."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from ift_serve.text.phases.thought_markers import ThoughtMarkers


class MarkerRule(IntEnum):
    """Whether a kind of marker counts. ``IF_BLANK``: if there is only white space between now and the marker."""

    NEVER = 0
    IF_BLANK = 1
    ALWAYS = 2


class TextPart(NamedTuple):
    """The symbols ``start .. end-1`` of a token. ``counts``: whether the token counts by this part."""

    position: int
    token_id: int
    start: int
    end: int
    is_whole: bool
    drawn: bool
    counts: bool


class MarkerFound(NamedTuple):
    """A whole marker. ``drawn``: whether the token that completes it was drawn."""

    parts: tuple[TextPart, ...]
    closes: bool
    drawn: bool


class HeldToken(NamedTuple):
    """A token that may be part of a marker, from its symbol ``start`` on.

    ``counted``: whether an earlier part of it counts.
    """

    position: int
    token_id: int
    start: int
    drawn: bool
    counted: bool


class MarkerScanner:
    """Holds the tokens that may turn out to be a marker: never more of them than a marker has symbols."""

    __slots__ = ("_closing_rule", "_markers", "_node", "_opening_rule", "held", "watch")

    def __init__(self, markers: ThoughtMarkers) -> None:
        self._markers = markers
        self._opening_rule = self._closing_rule = MarkerRule.NEVER
        self._node = 0
        self.held: tuple[HeldToken, ...] = ()
        self.watch = markers.watch(opening=False, closing=False)

    def copy(self) -> MarkerScanner:
        """One that goes on by itself."""
        other = MarkerScanner(self._markers)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def key(self) -> tuple[object, ...]:
        """What tells two scanners of the same markers apart."""
        return self._opening_rule, self._closing_rule, self._node, self.held

    def set_rules(self, opening: MarkerRule, closing: MarkerRule) -> None:
        """Which markers count from now on; tokens that are held are looked at again."""
        self._opening_rule, self._closing_rule = opening, closing
        watch = self._markers.watch(opening=opening > 0, closing=closing > 0)
        if watch is self.watch:
            return
        self.watch, self._node = watch, 0
        for token in self.held:
            for symbol in self._markers.symbols(token.token_id)[token.start :]:
                self._node = watch.matcher.step(self._node, symbol)

    def feed(self, token: HeldToken) -> Iterator[TextPart | MarkerFound]:
        """What has become certain with one more token. Whoever reads it may set other rules at each event."""
        symbols = self._markers.symbols(token.token_id)
        self.held = (*self.held, token)
        for place in range(token.start, len(symbols)):
            self._node = self.watch.matcher.step(self._node, symbols[place])
            if self.watch.found(self._node) is not None and self._counts(place + 1):
                counted = False
                for event in self._cut(place + 1):
                    counted = counted or (isinstance(event, TextPart) and event.position == token.position)
                    yield event
                if place + 1 < len(symbols):
                    yield from self.feed(token._replace(start=place + 1, counted=counted))
                return
        yield from self._release()

    def finish(self) -> Iterator[TextPart]:
        """The tokens that are held: no more will come, so they are text."""
        self._node = 0
        while self.held:
            yield self._release_first()

    def rest(self) -> tuple[int, ...]:
        """Ids that complete the closing marker that has begun; none if none has."""
        return self.watch.rest(self._node)

    def closers(self) -> tuple[int, ...]:
        """The tokens that would complete a closing marker next."""
        return self.watch.closers(self._node)

    def _size(self, token: HeldToken) -> int:
        return len(self._markers.symbols(token.token_id)) - token.start

    def _text_before(self, end: int) -> int:
        """Symbols that are held before the marker which ends before symbol ``end`` of the last token."""
        marker = self.watch.found(self._node)
        assert marker is not None
        *others, last = self.held
        return sum(map(self._size, others)) + end - last.start - len(marker.pattern)

    def _counts(self, end: int) -> bool:
        rule = self._closing_rule if self.watch.closes(self._node) else self._opening_rule
        return rule is MarkerRule.ALWAYS or self._is_blank(self._text_before(end))

    def _is_blank(self, count: int) -> bool:
        """Whether the first symbols that are held are white space."""
        for token in self.held:
            if count <= 0:
                break
            size = min(count, self._size(token))
            if not self._markers.is_blank(token.token_id, token.start, token.start + size):
                return False
            count -= size
        return True

    def _cut(self, end: int) -> Iterator[TextPart | MarkerFound]:
        """The text that is held, then the marker which ends before symbol ``end`` of the last token."""
        text, closes = self._text_before(end), self.watch.closes(self._node)
        held, self.held, self._node = self.held, (), 0
        parts = []
        for token in held:
            size = len(self._markers.symbols(token.token_id))
            stop = end if token is held[-1] else size
            middle = min(stop, token.start + max(0, text))
            text -= stop - token.start
            if middle > token.start:
                yield self._part(token, token.start, middle, counts=not token.counted)
            if stop > middle:
                counts = stop == size and middle == token.start and not token.counted
                parts.append(self._part(token, middle, stop, counts=counts))
        yield MarkerFound(tuple(parts), closes, held[-1].drawn)

    def _release(self) -> Iterator[TextPart]:
        """The tokens before the one in which a marker may begin."""
        while self.held:
            kept = sum(map(self._size, self.held[1:]))
            if kept < self.watch.matcher.depth[self._node]:
                return
            yield self._release_first()

    def _release_first(self) -> TextPart:
        first, *others = self.held
        self.held = tuple(others)
        size = len(self._markers.symbols(first.token_id))
        return self._part(first, first.start, size, counts=not first.counted)

    def _part(self, token: HeldToken, start: int, end: int, *, counts: bool) -> TextPart:
        is_whole = start == 0 and end == len(self._markers.symbols(token.token_id))
        return TextPart(token.position, token.token_id, start, end, is_whole, token.drawn, counts)
