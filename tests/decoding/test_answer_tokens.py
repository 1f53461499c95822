"""Characters of a path's text belong to the tokens that hold their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from ift_serve.checks.verdict import Span
from ift_serve.decoding.answer_tokens import PathText
from ift_serve.text.token_texts import DecoderKind, TokenDecoder
from tests.support.tiny_tokenizers import KINDS, SPECIAL, tokenizer_of, word_level


def tokens_by_bytes(tokenizer: Tokenizer, ids: list[int], text: str, span: Span) -> range:
    """The tokens that have a byte between those where the span begins and ends."""
    begin, end = (len(text[:place].encode()) for place in span)
    lengths = [len(TokenDecoder(tokenizer).raw(i)) for i in ids]
    starts = [sum(lengths[:t]) for t in range(len(ids))]
    covering = [t for t in range(len(ids)) if starts[t] < end and starts[t] + lengths[t] > begin]
    return range(covering[0], covering[-1] + 1)


@given(st.text("abcdog 日ö🙂12.,", min_size=1, max_size=16), st.data())
def test_tokens_of_a_span_are_those_that_hold_its_bytes(text: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of("byte-level")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    path = PathText.of(TokenDecoder(tokenizer), ids)
    assert path.text == text
    begin = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(begin + 1, len(text)))
    assert path.tokens((begin, end)) == tokens_by_bytes(tokenizer, ids, text, (begin, end))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tokenizer_finds_the_tokens_that_write_a_word(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode("the lazy dog jumps", add_special_tokens=False).ids
    path = PathText.of(TokenDecoder(tokenizer), ids)
    begin = path.text.index("dog")
    found = path.tokens((begin, begin + 3))
    assert found is not None
    inner = tokenizer.decode([ids[i] for i in found], skip_special_tokens=False)
    assert "dog" in inner and "lazy" not in inner and "jumps" not in inner


def test_special_tokens_are_no_text_and_keep_their_place() -> None:
    tokenizer = tokenizer_of("byte-level")
    special = tokenizer.token_to_id(SPECIAL[1])
    dog = tokenizer.encode("dog", add_special_tokens=False).ids
    path = PathText.of(TokenDecoder(tokenizer), [special, *dog, special])
    assert path.text == "dog"
    assert path.tokens((0, 3)) == range(1, 1 + len(dog))


def test_a_text_may_begin_within_a_path() -> None:
    tokenizer = tokenizer_of("byte-level")
    thought, answer = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("lazy", " dog"))
    path = PathText.of(TokenDecoder(tokenizer), thought + answer, start=len(thought))
    assert path.text == " dog"
    assert path.tokens((1, 4)) == range(len(thought), len(thought) + len(answer))


def test_nothing_is_made_of_no_tokens() -> None:
    path = PathText.of(TokenDecoder(tokenizer_of("byte-level")), [])
    assert path.text == "" and path.tokens((0, 0)) is None


def test_tokens_without_texts_are_refused() -> None:
    tokenizer = word_level()
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("do", "a")])
    decoder = TokenDecoder(tokenizer)
    assert decoder.kind is DecoderKind.WHOLE
    with pytest.raises(ValueError, match="no text of their own"):
        PathText.of(decoder, [1])
