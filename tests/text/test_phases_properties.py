"""What holds of the phase machine for any tokens, however they come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from ift_serve.text.phases import Channel, ChannelPiece, ChannelRouter, Phase, PhaseState, ThoughtStart
from ift_serve.text.token_texts import DecoderKind, TokenDecoder
from tests.support.phases import BLANK, CLOSE, OPEN, TYPED, begin, builder, merging, texts, unary, write
from tests.support.tiny_tokenizers import KINDS, tokenizer_of

FRAGMENTS = [
    "<reason>", "</reason>", "<reason", "</rea", "<", ">", "/", "<<", "\n\n", " ", ".", "reason", "q.</reason>\n\n",
    "日", "well", "<b>",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
BUDGETS = st.none() | st.integers(0, 12)
CUTS = st.lists(st.integers(1, 5), max_size=60)


def spelled_out(text: str, phase: Phase) -> dict[Channel, str]:
    """The channels of a text, by the rule for typed markers: a thought closes at its marker, any other marker counts
    only where its phase has nothing but white space."""
    shown, own, place = {Channel.REASONING: "", Channel.ANSWER: ""}, "", 0
    while place < len(text):
        is_thought = phase is Phase.THOUGHT
        if text.startswith(TYPED.closing, place) and (is_thought or not own.strip()):
            place += len(TYPED.closing)
            # A marker that closes nothing leaves the answer as blank as it was.
            phase, own = Phase.ANSWER, ""
        elif text.startswith(TYPED.opening, place) and not own.strip():
            place += len(TYPED.opening)
            phase, own = Phase.THOUGHT, ""
        else:
            own += text[place]
            shown[Channel.REASONING if is_thought else Channel.ANSWER] += text[place]
            place += 1
    return shown


@st.composite
def tokenised(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> tuple[str, list[int]]:
    """A text, and one of all the ways in which the vocabulary can write it."""
    text = draw(texts)
    by_bytes = builder(merging())
    by_bytes.settings(pair=TYPED)
    assert by_bytes._bytes is not None
    vocabulary = by_bytes._bytes.by_id
    rest, ids = text.encode(), []
    while rest:
        fitting = sorted(index for index, data in vocabulary.items() if data and rest.startswith(data))
        ids.append(draw(st.sampled_from(fitting)))
        rest = rest[len(vocabulary[ids[-1]]) :]
    return text, ids


@settings(max_examples=300, deadline=None)
@given(written=tokenised(), start=st.sampled_from([ThoughtStart.FREE, ThoughtStart.IMPLICIT]))
def test_channels_depend_on_the_text_and_not_on_its_tokens(written: tuple[str, list[int]], start: ThoughtStart) -> None:
    text, ids = written
    state = PhaseState.begin(builder(merging()).settings(pair=TYPED, start=start))
    assert unary(state, merging(), ids) == spelled_out(text, state.phase)


@settings(max_examples=200, deadline=None)
@given(
    ids=st.lists(st.integers(0, 279), max_size=60) | tokenised().map(lambda pair: pair[1]), cuts=CUTS, budget=BUDGETS
)
def test_a_stream_is_the_whole_answer_channel_by_channel(ids: list[int], cuts: list[int], budget: int | None) -> None:
    state = PhaseState.begin(builder(merging()).settings(pair=TYPED, budget=budget))
    router, pieces, place = ChannelRouter(state.copy(), TokenDecoder(merging())), list[ChannelPiece](), 0
    for cut in [*cuts, 10**6]:
        pieces += router.push(ids[place : place + cut])
        place += cut
    pieces += router.flush()
    assert texts(pieces) == unary(state, merging(), ids)
    assert b"".join(piece.raw for piece in pieces) == b"".join(TokenDecoder(merging()).raw(i) for i in ids)
    assert all(a.position <= b.position for a, b in pairwise(pieces))


@settings(max_examples=200, deadline=None)
@given(
    ids=st.lists(st.integers(0, 279), max_size=40) | tokenised().map(lambda pair: pair[1]),
    budget=BUDGETS,
    place=st.integers(0, 40),
)
def test_a_copy_equals_a_replay_and_leaves_the_original_alone(ids: list[int], budget: int | None, place: int) -> None:
    def at(count: int) -> PhaseState:
        state = PhaseState.begin(builder(merging()).settings(pair=TYPED, budget=budget))
        state.observe_all(ids[:count])
        return state

    original = at(place)
    fork = original.copy()
    rest = [fork.observe(i) for i in ids[place:]]
    assert fork == at(len(ids))
    assert original == at(place)
    assert [original.observe(i) for i in ids[place:]] == rest


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 279), max_size=40) | tokenised().map(lambda pair: pair[1]), budget=BUDGETS)
def test_every_token_counts_once(ids: list[int], budget: int | None) -> None:
    state = PhaseState.begin(builder(merging()).settings(pair=TYPED, budget=budget))
    parts = [*state.observe_all(ids), *state.finish()]
    assert [part.position for part in parts if part.counts] == list(range(len(ids)))
    assert state.reasoning_tokens + state.answer_tokens + state.marker_tokens == len(ids)
    counted = [part for part in parts if part.counts]
    assert sum(part.channel is Channel.REASONING for part in counted) == state.reasoning_tokens
    assert sum(part.channel is Channel.ANSWER for part in counted) == state.answer_tokens


UNCLOSED = TEXTS.map("<reason>so".__add__).filter(lambda text: text.count("reason>") == 1)


@settings(max_examples=200, deadline=None)
@given(prompt=tokenised(UNCLOSED), rest=tokenised())
def test_a_resumed_thought_goes_on_as_if_it_had_not_been_cut(
    prompt: tuple[str, list[int]], rest: tuple[str, list[int]]
) -> None:
    resumed = PhaseState.begin(builder(merging()).settings(pair=TYPED), prompt[1])
    whole = spelled_out(prompt[0] + rest[0], Phase.ANSWER)
    shown = unary(resumed, merging(), rest[1])
    thought = prompt[0].removeprefix("<reason>")
    if whole[Channel.REASONING].startswith(thought):
        assert shown == {**whole, Channel.REASONING: whole[Channel.REASONING][len(thought) :]}
    else:
        # The prompt ended in the beginning of a marker that the generated text completes.
        assert thought.startswith(whole[Channel.REASONING]) and shown == {**whole, Channel.REASONING: ""}


def _runs(tokenizer: Tokenizer, ids: list[int]) -> list[tuple[Channel, list[int]]]:
    """Runs of text of one channel, where ``<think>`` and ``</think>`` are control tokens; special tokens left out."""
    open_id, close_id = tokenizer.token_to_id("<think>"), tokenizer.token_to_id("</think>")
    runs: list[tuple[Channel, list[int]]] = [(Channel.ANSWER, [])]
    for token in ids:
        if token in (open_id, close_id):
            runs.append((Channel.REASONING if token == open_id else Channel.ANSWER, []))
        elif not tokenizer.get_added_tokens_decoder().get(token, _ORDINARY).special:
            runs[-1][1].append(token)
    return runs


_ORDINARY = AddedToken("a")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), cuts=CUTS)
def test_every_kind_of_tokenizer_parts_its_text(kind: str, data: st.DataObject, cuts: list[int]) -> None:
    tokenizer = tokenizer_of(kind)
    decoder = TokenDecoder(tokenizer)
    markers = st.sampled_from([tokenizer.token_to_id("<think>"), tokenizer.token_to_id("</think>")])
    some = st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), min_size=1, max_size=5)
    drawn = data.draw(st.lists(st.tuples(some, markers), max_size=6))
    # Markers alternate: one that opens an open thought would be text.
    ids, thinks = list[int](), False
    for words, marker in drawn:
        ids += [i for i in words if i not in (tokenizer.token_to_id("<think>"), tokenizer.token_to_id("</think>"))]
        if (marker == tokenizer.token_to_id("<think>")) is not thinks:
            ids.append(marker)
            thinks = not thinks
    state = PhaseState.begin(builder(tokenizer).settings())
    router, pieces, place = ChannelRouter(state.copy(), decoder), list[ChannelPiece](), 0
    for cut in [*cuts, 10**6]:
        pieces += router.push(ids[place : place + cut])
        place += cut
    pieces += router.flush()
    shown = texts(pieces)
    assert shown == unary(state, tokenizer, ids)
    if decoder.kind is DecoderKind.TOKENS:
        if not any(decoder.is_byte(i) for i in ids):
            whole = decoder.decode([i for i in ids if i not in decoder.special])
            assert "".join(piece.text for piece in pieces) == whole, "markers and channels, in order, are the text"
    else:
        for channel, text in shown.items():
            runs = [run for own, run in _runs(tokenizer, ids) if own is channel and run]
            assert text == "".join(map(decoder.decode, runs))


def _by_ids(ids: list[int], phase: Phase) -> list[Channel]:
    """Channels of tokens where each marker is one control token."""
    channels, blank = [], True
    for token in ids:
        is_thought = phase is Phase.THOUGHT
        if token == CLOSE or (token == OPEN and (blank or not is_thought)):
            channels.append(Channel.MARKER)
            turned = Phase.THOUGHT if token == OPEN else Phase.ANSWER
            blank = blank if turned is phase and token == CLOSE else True
            phase = turned
        else:
            channels.append(Channel.REASONING if is_thought else Channel.ANSWER)
            blank = blank and token == BLANK
    return channels


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.sampled_from([OPEN, CLOSE, BLANK, 100, 101]), max_size=40), opened=st.booleans(), budget=BUDGETS)
def test_control_tokens_part_the_channels(ids: list[int], opened: bool, budget: int | None) -> None:
    written = write(begin([OPEN] if opened else [], budget=budget), ids)
    expected = _by_ids(written.token_ids, Phase.THOUGHT if opened else Phase.ANSWER)
    assert [part.channel for part in written.routed] == expected


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.sampled_from([OPEN, CLOSE, BLANK, 100, 101]), max_size=30), budget=BUDGETS)
def test_both_sides_come_to_the_same(ids: list[int], budget: int | None) -> None:
    """The engine forces; whoever reads its tokens knows nothing but them."""
    engine = begin([OPEN], budget=budget)
    written = write(engine, ids)
    front = begin([OPEN], budget=budget)
    routed = [*front.observe_all(written.token_ids), *front.finish()]
    assert routed == written.routed and front == engine
