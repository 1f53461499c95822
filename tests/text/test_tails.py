"""Continuations of one context have the ids that context and continuation have together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.text.encoder import TextEncoder, TextLimits
from ift_serve.text.message import PromptError
from tests.support.tiny_tokenizers import KINDS, tokenizer_of

WORDS = st.sampled_from(
    [
        "the",
        "quick",
        "dog's",
        "fox,",
        "isn't",
        "12",
        "  ",
        "\n",
        "日本",
        "é",
        "<|im_end|>",
        "a",
        "over.",
        "<think>",
        "#x",
    ]
)
CONTEXT = st.lists(WORDS, min_size=1, max_size=120).map(" ".join)
END = st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=4).map("".join)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(context=CONTEXT, ends=st.lists(END, min_size=1, max_size=5))
def test_ids_are_those_of_the_whole(kind: str, special: bool, context: str, ends: list[str]) -> None:
    encoder = TextEncoder(tokenizer_of(kind))
    found = encoder.tails.token_ids(
        context, ends, lambda texts, begins: encoder.batch_ids(texts, "text", special=special and begins)
    )
    whole = [context, *(context + end for end in ends)]
    assert found == [tokenizer_of(kind).encode(text, add_special_tokens=special).ids for text in whole]


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace", "unigram", "word-piece"])
def test_the_context_is_read_once(kind: str) -> None:
    encoder = TextEncoder(tokenizer_of(kind))
    context, ends = "the quick brown fox " * 200 + "and", [f" dog {i}" for i in range(50)]
    read = 0

    def encode(texts: Sequence[str], begins: bool) -> list[list[int]]:
        nonlocal read
        read += sum(map(len, texts))
        return encoder.batch_ids(texts, "text", special=begins)

    encoder.tails.token_ids(context, ends, encode)
    assert read < 3 * len(context) + 50 * 1500


def test_texts_of_one_request_are_bounded_together() -> None:
    encoder = TextEncoder(tokenizer_of("byte-level"), TextLimits(batch_bytes=1000))
    with pytest.raises(PromptError, match="fewer continuations"):
        encoder.batch_ids(["a" * 600] * 2, "continuations")
