"""Tokens that hold more than one thing, markers that are half there, and callers that do not do as they are asked."""

from __future__ import annotations

from ift_serve.text.phases import (
    Channel,
    Phase,
    PhaseSettings,
    PhaseState,
    Routed,
    ThoughtMarker,
    ThoughtMarkers,
    ThoughtStart,
)
from ift_serve.text.phases.matcher import PatternMatcher
from tests.support.phases import CLOSE, OPEN, TYPED, begin, builder, merging, write

OPENS, CLOSES = 20, 21


def melted(*pieces: bytes, **settings: object) -> tuple[PhaseState, list[int]]:
    """A state for the typed markers ``<t>`` and ``</t>`` that count anywhere, and tokens of these bytes."""
    ids = range(30, 30 + len(pieces))
    table = {OPENS: b"<t>", CLOSES: b"</t>", **dict(zip(ids, pieces, strict=True))}
    opening, closing = (ThoughtMarker(tuple(table[i]), ((i,),) * len(table[i])) for i in (OPENS, CLOSES))
    markers = ThoughtMarkers((opening,), (closing,), pieces=table)
    options = {"closing": (CLOSES,), "markers_anywhere": True, **settings}
    return PhaseState.begin(PhaseSettings(markers, **options)), list(ids)  # type: ignore[arg-type]


def _parts(routed: list[Routed]) -> list[tuple[Channel, bytes | None, bool]]:
    return [(part.channel, part.text, part.counts) for part in routed]


def test_a_token_with_text_on_both_sides_of_a_marker_counts_by_the_first() -> None:
    state, ids = melted(b"a<t>b")
    routed = [*state.observe_all(ids), *state.finish()]
    assert _parts(routed) == [
        (Channel.ANSWER, b"a", True), (Channel.MARKER, b"<t>", False), (Channel.REASONING, b"b", False),
    ]  # fmt: skip
    assert state.spent == 0


def test_a_token_with_two_markers_counts_once() -> None:
    state, ids = melted(b"a<t></t>", b"<t></t>", b"</t> ")
    routed = [*state.observe_all(ids), *state.finish()]
    assert [part.position for part in routed if part.counts] == [0, 1, 2]
    assert (state.answer_tokens, state.marker_tokens) == (2, 1)
    assert state.phase is Phase.ANSWER


def test_what_is_held_of_a_token_that_counts_elsewhere_is_not_spent() -> None:
    state, ids = melted(b"a<t><", budget=1)
    state.observe_all(ids)
    assert state.phase is Phase.THOUGHT and state.spent == 0 and state.expected == ()


def test_a_thought_that_is_opened_again_knows_nothing_of_the_one_before() -> None:
    state = begin([OPEN], closing=(50, 51, CLOSE))
    state.observe_all([100, 50, CLOSE, 200, OPEN])
    assert state.closing() == (50, 51, CLOSE)
    (part,) = state.observe(OPEN).routed
    assert part.channel is Channel.MARKER, "it is blank, so it may be opened twice"


def test_what_has_to_come_is_asked_for_again() -> None:
    state = begin([OPEN], budget=1)
    assert state.observe(100).force == (CLOSE,)
    decision = state.observe(101)
    assert decision.force == (CLOSE,) and decision.routed[0].channel is Channel.REASONING
    assert state.spent == 2 and state.forced_tokens == 0
    assert state.observe(CLOSE).force == ()
    assert state.phase is Phase.ANSWER


def test_a_long_message_is_asked_for_once() -> None:
    state = begin([OPEN], budget=1, closing=(50, 51, CLOSE))
    assert state.observe(100).force == (50, 51, CLOSE)
    assert [state.observe(token).force for token in (50, 51, CLOSE)] == [(), (), ()]


def test_a_marker_that_the_prompt_has_begun_is_left_to_the_model() -> None:
    prompt = merging().encode("hi <rea").ids
    settings = builder(merging()).settings(pair=TYPED, start=ThoughtStart.FORCED)
    state = PhaseState.begin(settings, prompt)
    assert state.expected == ()
    routed = state.observe_all(merging().encode("son>").ids)
    assert state.phase is Phase.THOUGHT
    assert [part.position for part in routed] == list(range(len(merging().encode("son>").ids)))


def test_text_that_the_prompt_has_is_not_routed() -> None:
    settings = builder(merging()).settings(pair=TYPED)
    state = PhaseState.begin(settings, merging().encode("<reason>so </rea").ids)
    written = write(state, merging().encode("l</reason>").ids)
    assert merging().decode(written.channel(Channel.REASONING)) == "l"
    assert state.reasoning_tokens == 1


def test_a_marker_in_a_prompt_is_found_behind_a_false_start() -> None:
    prompt = [i for character in "x<<reason>" for i in merging().encode(character).ids]
    state = PhaseState.begin(builder(merging()).settings(pair=TYPED), prompt)
    assert state.phase is Phase.THOUGHT


def test_a_pattern_is_found_within_the_beginning_of_another() -> None:
    matcher, node, found = PatternMatcher([b"abcd", b"bc"]), 0, []
    for symbol in b"abcx":
        node = matcher.step(node, symbol)
        found.append(matcher.accepted[node])
    assert found == [-1, -1, 1, -1]


def test_a_matcher_tells_which_pattern_has_begun() -> None:
    matcher, node = PatternMatcher([b"<a", b"</b"]), 0
    for symbol in b"<</":
        node = matcher.step(node, symbol)
    assert matcher.partial(node, {1}) == (1, 2) and matcher.partial(node, {0}) == (-1, 0)
