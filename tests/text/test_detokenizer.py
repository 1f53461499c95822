"""Streaming text: whole characters, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ift_serve.text import IncrementalDetokenizer, StopMatcher
from ift_serve.text.detokenizer import PieceStream
from ift_serve.text.token_texts import TokenDecoder
from tests.support.tiny_tokenizers import KINDS, tokenizer_of

CUTS = st.lists(st.integers(1, 4), max_size=150)


def _stream(tokenizer: Any, ids: list[int], cuts: list[int], skip: bool = True) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, skip)
    pieces, place = [], 0
    for cut in [*cuts, 10**6]:
        part = ids[place : place + cut]
        place += cut
        if part:
            pieces.append(detokenizer.push(part))
    return [*pieces, detokenizer.flush()]


def _ids(kind: str) -> st.SearchStrategy[list[int]]:
    """Random tokens, with runs of byte tokens and of tokens that repeat."""
    tokenizer = tokenizer_of(kind)
    any_token = st.integers(0, tokenizer.get_vocab_size() - 1)
    vocabulary = tokenizer.get_vocab()
    byte_tokens = [i for token, i in vocabulary.items() if token.startswith("<0x")]
    byte = st.sampled_from(byte_tokens) if byte_tokens else any_token
    characters = st.characters(codec="utf-8").map(
        lambda c: [vocabulary[f"<0x{b:02X}>"] for b in c.encode()] if byte_tokens else tokenizer.encode(c).ids
    )
    some = st.one_of(
        st.lists(any_token, max_size=4),
        st.lists(byte, max_size=3),
        characters,
        st.tuples(any_token, st.integers(1, 30)).map(lambda pair: [pair[0]] * pair[1]),
    )
    return st.lists(some, max_size=40).map(lambda parts: [i for part in parts for i in part])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), cuts=CUTS, skip=st.booleans())
def test_any_tokens_join_to_the_whole(kind: str, data: st.DataObject, cuts: list[int], skip: bool) -> None:
    tokenizer, ids = tokenizer_of(kind), data.draw(_ids(kind))
    assert "".join(_stream(tokenizer, ids, cuts, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=80), cuts=CUTS)
def test_text_comes_back_in_whole_characters(kind: str, text: str, cuts: list[int]) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = _stream(tokenizer, ids, cuts)
    assert "".join(pieces) == tokenizer.decode(ids)
    if kind in ("byte-level", "byte-fallback"):
        assert "".join(pieces).count("\ufffd") == text.count("\ufffd")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_pieces_of_tokens_join_to_the_whole(kind: str, data: st.DataObject) -> None:
    tokenizer, ids = tokenizer_of(kind), data.draw(_ids(kind))
    stream = PieceStream(TokenDecoder(tokenizer))
    pieces = [piece for i in ids for piece in stream.push([i])] + stream.flush()
    whole = tokenizer.decode(ids, skip_special_tokens=False)
    assert "".join(piece.text for piece in pieces) == whole
    assert [piece.token_id for piece in pieces] == ids
    raw = b"".join(piece.raw for piece in pieces)
    if kind == "byte-level" or "\ufffd" not in whole:
        assert raw.decode(errors="replace").lstrip(" ") == whole.lstrip(" ")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_token_looked_at_before_it_comes_is_the_piece_it_becomes(kind: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    text = data.draw(st.text(alphabet="the dog éö日🙂", max_size=30))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    stream = PieceStream(TokenDecoder(tokenizer))
    seen, pieces = [], []
    for i in ids:
        seen.append(stream.peek(i))
        pieces += stream.push([i])
    assert [p.text for p in seen] == [p.text for p in (pieces + stream.flush())]


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace", "unigram", "word-piece"])
def test_ordinary_text_flows_token_by_token(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode("the quick brown fox jumps over the dog").ids
    detokenizer = IncrementalDetokenizer(tokenizer)
    for count, token_id in enumerate(ids, 1):
        detokenizer_text = detokenizer.push([token_id])
        assert detokenizer_text or tokenizer.decode(ids[:count]) == tokenizer.decode(ids[: count - 1])


def test_a_stray_byte_after_a_character_loses_nothing() -> None:
    tokenizer = tokenizer_of("byte-fallback")
    stray = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in (*"é".encode(), 0xFF)]
    words = tokenizer.encode("the dog").ids
    pieces = _stream(tokenizer, [*words, *stray, *words], [1] * 20)
    assert "".join(pieces) == tokenizer.decode([*words, *stray, *words]) == "the dog\ufffd\ufffd\ufffd the dog"


def test_a_replacement_character_that_the_model_writes_comes_through_at_once() -> None:
    tokenizer = tokenizer_of("byte-level")
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert "".join(detokenizer.push([i]) for i in tokenizer.encode("a\ufffd").ids) == "a\ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_costs_the_same_however_long_the_text_is(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    decoder, longest = TokenDecoder(tokenizer), 0
    decode = decoder.decode

    def measured(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    decoder.decode = measured  # type: ignore[method-assign]
    ids = tokenizer.encode("the quick brown fox isn't   here, dog. " * 60).ids
    detokenizer = IncrementalDetokenizer(decoder)
    text = "".join(detokenizer.push([i]) for i in ids) + detokenizer.flush()
    assert text == tokenizer.decode(ids)
    assert longest <= 64


def test_a_character_split_over_tokens_comes_out_once_complete() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    )
    ids = tokenizer.encode("🙂").ids
    assert len(ids) == 4
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert [detokenizer.push([i]) for i in ids] == ["", "", "", "🙂"]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="abc", max_size=30),
    stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 4), max_size=30),
)
def test_stop_strings_are_found_at_any_split_and_never_sent(text: str, stop: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stop)
    sent, place, matched = "", 0, None
    for cut in [*cuts, len(text)]:
        new, matched = matcher.push(text[place : place + cut])
        place += cut
        sent += new
        if matched is not None:
            break
        assert not any(s in sent for s in stop)
    if matched is None:
        sent += matcher.flush()
        assert sent == text and not any(s in text for s in stop)
    else:
        _, first, expected = min((text.find(s) + len(s), text.find(s), s) for s in stop if s in text)
        assert sent == text[:first] and matched == expected


def test_without_stop_strings_text_passes_at_once() -> None:
    assert StopMatcher([]).push("abc") == ("abc", None)
