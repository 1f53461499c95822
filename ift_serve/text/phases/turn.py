"""Start of the turn in a prompt that the answer continues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ift_serve.text.message import Segment
from ift_serve.text.phases.thought_markers import ThoughtMarkers

_OTHERS = bytes((Segment.INSTRUCTION, Segment.CONTEXT))
"""Segments that the model has not written and does not go on with."""


@dataclass(frozen=True, slots=True)
class PromptTurn:
    """The end of a prompt that belongs to the turn to be written on.

    ``token_ids``: from its first marker or its first token of a response. ``is_known``: whether the prompt's segments
    say where the turn begins; else it is guessed from the last marker, and what it says of an answer is not reliable.
    """

    token_ids: Sequence[int]
    is_known: bool


def last_turn(markers: ThoughtMarkers, token_ids: Sequence[int], segment_ids: bytes = b"") -> PromptTurn:
    """The turn at the end of a prompt. ``segment_ids``: one byte a token, or empty where nothing is known."""
    begin = max(map(segment_ids.rfind, (bytes((segment,)) for segment in _OTHERS))) + 1
    if begin:
        response = segment_ids.find(bytes((Segment.RESPONSE,)), begin)
        places = [place for place, _ in _found(markers, token_ids, begin)][:1]
        places += [response] if response >= 0 else []
        return PromptTurn(token_ids[min(places, default=len(token_ids)) :], True)
    place, is_open = len(token_ids), False
    for start, opens in _found(markers, token_ids, 0):
        # A closing marker belongs to the thought before it, and where there is none to what is prefilled.
        if opens or not is_open:
            place = start
        is_open = opens
    return PromptTurn(token_ids[place:], False)


def earlier_turns(token_ids: Sequence[int], segment_ids: bytes) -> Iterator[Sequence[int]]:
    """Runs of a prompt between what others have written, the last one left out."""
    begin = 0
    for place, segment in enumerate(segment_ids):
        if segment in _OTHERS:
            if begin < place:
                yield token_ids[begin:place]
            begin = place + 1


def _found(markers: ThoughtMarkers, token_ids: Sequence[int], begin: int) -> Iterator[tuple[int, bool]]:
    """First token of every marker from ``begin`` on, and whether it opens a thought; one that is half there, too."""
    watch = markers.watch(opening=True, closing=True)
    starters, matcher = watch.starters, watch.matcher
    node, first = 0, begin
    ends: list[int] = []
    """Symbols of the tokens since the marker may have begun."""
    for place in range(begin, len(token_ids)):
        token_id = token_ids[place]
        if not node and token_id not in starters:
            continue
        if not node:
            first, ends = place, []
        symbols = markers.symbols(token_id)
        ends.append(len(symbols))
        for symbol in symbols:
            node = matcher.step(node, symbol)
            if watch.found(node) is not None:
                yield first, not watch.closes(node)
                node, first, ends = 0, place, [len(symbols)]
        while len(ends) > 1 and sum(ends[1:]) >= matcher.depth[node]:
            first += 1
            del ends[0]
    if node:
        yield first, False
