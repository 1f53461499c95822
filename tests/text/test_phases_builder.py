"""Markers and messages of real tokenizers: found, compiled, and written in exactly their tokens."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer

from ift_serve.text.phases import (
    KNOWN_MARKERS,
    Channel,
    MarkerPair,
    Phase,
    PhaseBuilder,
    PhaseError,
    PhaseState,
    ThoughtMarkers,
)
from ift_serve.text.phases.matcher import PatternMatcher
from ift_serve.text.token_texts import TokenDecoder
from tests.support.phases import TYPED, builder, merging, unary, write
from tests.support.tiny_tokenizers import byte_level, tokenizer_of

THINK = MarkerPair("<think>", "</think>")
READABLE = ["byte-level", "byte-fallback"]
"""Tokenizers that can write any text."""


def _spelled(tokenizer: Tokenizer, ids: tuple[int, ...]) -> str:
    """What ids add behind a word."""
    word = tokenizer.encode("a", add_special_tokens=False).ids
    decoder = TokenDecoder(tokenizer)
    return decoder.decode([*word, *ids])[len(decoder.decode(word)) :]


@pytest.mark.parametrize("kind", [*READABLE, "metaspace", "unigram"])
def test_added_tokens_are_found_and_are_single_ids(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    one = builder(tokenizer)
    assert one.pair == THINK
    markers = one.markers()
    assert markers is not None and markers.are_control_tokens
    assert markers.opening[0].token_ids == (tokenizer.token_to_id("<think>"),)
    assert one.settings().closing == (tokenizer.token_to_id("</think>"),)


@pytest.mark.parametrize("pair", KNOWN_MARKERS, ids=lambda pair: pair.opening)
def test_a_template_says_which_markers_a_model_uses(pair: MarkerPair) -> None:
    template = f"{{{{ content.split('{pair.closing}')[-1] }}}}{pair.opening}"
    assert builder(merging(), template).pair == pair


def test_the_template_chooses_among_added_tokens() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("[THINK]", "[/THINK]")])
    assert builder(tokenizer).pair == THINK
    assert builder(tokenizer, "[THINK]... [/THINK]").pair == MarkerPair("[THINK]", "[/THINK]")


def test_configuration_goes_before_what_is_found_and_the_request_before_that() -> None:
    tokenizer = tokenizer_of("byte-level")
    own = builder(tokenizer)
    configured = PhaseBuilder(own._encoder, own._decoder, "", MarkerPair("(", ")"))
    assert configured.pair == MarkerPair("(", ")")
    assert configured.settings(pair=THINK).closing == (tokenizer.token_to_id("</think>"),)


def test_a_model_without_markers_is_told_so() -> None:
    one = builder(merging())
    assert one.pair is None and one.markers() is None
    with pytest.raises(PhaseError, match="markers"):
        one.settings(budget=3)


@pytest.mark.parametrize("kind", READABLE)
@pytest.mark.parametrize("message", ["the dog", "\n\nthe dog.\n", " dog, isn't it? ", "日本語", "the<think"])
def test_a_message_has_no_special_prefix_and_is_itself(kind: str, message: str) -> None:
    tokenizer = tokenizer_of(kind)
    closing = builder(tokenizer).settings(closing_message=message).closing
    assert closing[-1] == tokenizer.token_to_id("</think>")
    assert _spelled(tokenizer, closing) == message + "</think>"
    assert tokenizer.token_to_id("<s>") not in closing


def test_a_message_may_go_on_behind_its_marker() -> None:
    tokenizer = tokenizer_of("byte-level")
    settings = builder(tokenizer).settings(closing_message="dog.\n</think>\n\nSo ")
    assert _spelled(tokenizer, settings.after) == "\n\nSo "


@pytest.mark.parametrize("kind", READABLE)
@pytest.mark.parametrize("pair", [TYPED, MarkerPair("\u25c1think\u25b7", "\u25c1/think\u25b7")], ids=["ascii", "not"])
def test_a_marker_half_written_is_completed_from_any_byte(kind: str, pair: MarkerPair) -> None:
    tokenizer = tokenizer_of(kind)
    markers = builder(tokenizer).settings(pair=pair).markers
    one = builder(tokenizer)
    assert one._bytes is not None and not markers.are_control_tokens
    data, (marker,) = pair.closing.encode(), markers.closing
    assert bytes(marker.pattern) == data
    for place, rest in enumerate(marker.rests):
        assert b"".join(one._bytes.by_id[i] for i in rest) == data[place:]


@pytest.mark.parametrize("kind", READABLE)
def test_a_budget_closes_with_the_text_of_the_marker_in_any_tokenizer(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    settings = builder(tokenizer).settings(pair=TYPED, budget=3, closing_message=" Enough.")
    prompt = tokenizer.encode(TYPED.opening, add_special_tokens=False).ids
    state = PhaseState.begin(settings, prompt)
    dog = tokenizer.encode("the dog the dog", add_special_tokens=False).ids
    written = write(state.copy(), dog, limit=60)
    channels = unary(state, tokenizer, written.token_ids)
    said = TokenDecoder(tokenizer).decode([*prompt, *dog[:3]]).removeprefix(TokenDecoder(tokenizer).decode(prompt))
    assert channels[Channel.REASONING].lstrip(" ") == said.lstrip(" ") + " Enough."
    assert written.state.phase is Phase.ANSWER and TYPED.closing not in channels[Channel.ANSWER]


def test_a_marker_may_mix_control_tokens_and_text() -> None:
    tokenizer = tokenizer_of("byte-level")
    pair = MarkerPair("<|im_start|>user", "<|im_start|>assistant\n")
    settings = builder(tokenizer).settings(pair=pair)
    state = PhaseState.begin(settings, tokenizer.encode(pair.opening).ids)
    assert state.phase is Phase.THOUGHT and settings.markers.are_control_tokens
    ids = tokenizer.encode("dog assistant\n<|im_start|>assistant\nfox").ids
    assert unary(state, tokenizer, ids) == {Channel.REASONING: "dog assistant\n", Channel.ANSWER: "fox"}


@pytest.mark.parametrize("kind", ["word-level", "ctc", "word-piece"])
def test_tokens_that_cannot_be_read_alone_have_control_tokens_as_markers_only(kind: str) -> None:
    one = builder(tokenizer_of(kind))
    assert one.settings().closing == (tokenizer_of(kind).token_to_id("</think>"),)
    with pytest.raises(PhaseError):
        one.settings(pair=TYPED)


@pytest.mark.parametrize(
    ("field", "pair"),
    [
        ("markers.opening", MarkerPair("", "b")),
        ("markers.closing", MarkerPair("a", " \n")),
        ("markers.closing", MarkerPair("a", "b" * 65)),
        ("markers", MarkerPair("a", "a")),
    ],
)
def test_markers_that_cannot_be_are_refused_by_name(field: str, pair: MarkerPair) -> None:
    with pytest.raises(PhaseError) as caught:
        builder(merging()).settings(pair=pair)
    assert caught.value.field == field


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(PhaseError, match="closing_message"):
        builder(merging()).settings(pair=TYPED, closing_message="a" * 5000)


def test_markers_need_both_ends() -> None:
    for opening, closing in (((), (1,)), ((1,), ()), ((1,), (1,))):
        with pytest.raises(ValueError, match="markers"):
            ThoughtMarkers.of_ids(opening, closing)


def test_a_matcher_finds_a_pattern_behind_a_false_start() -> None:
    matcher, node, found = PatternMatcher([b"<<a", b"<b"]), 0, []
    for symbol in b"<<<a <<b":
        node = matcher.step(node, symbol)
        found.append(matcher.accepted[node])
    assert found == [-1, -1, -1, 0, -1, -1, -1, 1]
