"""Streaming text: whole characters, and no part of a stop string."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ift_serve.text import IncrementalDetokenizer, StopMatcher

CORPUS = ["the quick brown fox, jumps over the lazy dog. " * 3, "héllo wörld 日本語 🙂🙃 naïve", "a b c <|end|>"]


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False),
    )
    return tokenizer


def _metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>"], show_progress=False)
    )
    return tokenizer


TOKENIZERS: dict[str, Tokenizer] = {"byte-level": _byte_level(), "metaspace": _metaspace()}


def _stream(tokenizer: Any, ids: list[int], cuts: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer)
    pieces, place = [], 0
    for cut in [*cuts, 10**6]:
        part = ids[place : place + cut]
        place += cut
        if part:
            pieces.append(detokenizer.push(part))
    return [*pieces, detokenizer.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=80), cuts=st.lists(st.integers(1, 3), max_size=150))
def test_pieces_join_to_the_whole(name: str, text: str, cuts: list[int]) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = _stream(tokenizer, ids, cuts)
    whole = tokenizer.decode(ids)
    assert "".join(pieces) == whole
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, 329), max_size=120))
def test_any_tokens_even_broken_bytes_join_to_the_whole(ids: list[int]) -> None:
    tokenizer = TOKENIZERS["byte-level"]
    assert "".join(_stream(tokenizer, ids, [1] * len(ids))) == tokenizer.decode(ids)


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
