"""Tokenising what callers send: bounded before it begins, and never alone with the interpreter lock."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from ift_serve.text.encoder import TextEncoder, TextLimits
from ift_serve.text.message import PromptError
from ift_serve.text.workers import TextWorkers
from tests.support.tiny_tokenizers import KINDS, byte_level, tokenizer_of

TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["the ", "dog", "  ", "\n", "\t", "<|im_end|>", "<think>", "ｆｏｘ", "\u212a", "e\u0301", "日本", "🙂", "\0"]
    ),
    max_size=30,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(text=TEXT, times=st.integers(1, 20))
def test_no_text_that_fits_is_refused(kind: str, text: str, times: int) -> None:
    encoder = TextEncoder(tokenizer_of(kind))
    text = text * times
    tokens = len(tokenizer_of(kind).encode(text, add_special_tokens=False).ids)
    encoder.limit_tokens(max(tokens, 1))
    assert len(encoder.encode(text, "text").ids) == tokens
    if tokens > 1:
        encoder.limit_tokens(tokens - 1)
        with pytest.raises(PromptError, match="context"):
            encoder.encode(text, "text")


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])
def test_what_cannot_fit_is_refused_without_reading_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(tokenizer_of(kind), TextLimits(tokens=8))
    assert encoder.bound is not None
    monkeypatch.setattr(encoder, "_run", lambda *_: pytest.fail("it was tokenised"))
    for text in ("a" * 10_000, " " * 10_000, "🙂" * 5_000, "日" * 5_000):
        with pytest.raises(PromptError, match="at least"):
            encoder.encode(text, "text")


def test_a_normaliser_that_collapses_text_leaves_no_bound_but_the_absolute_one() -> None:
    backend = byte_level()
    backend.normalizer = normalizers.Strip()
    encoder = TextEncoder(backend, TextLimits(tokens=4, text_bytes=5000))
    assert len(encoder.encode(" " * 4000 + "dog", "text").ids) <= 4
    with pytest.raises(PromptError, match="at most 5000"):
        encoder.encode(" " * 6000 + "dog", "text")


def test_a_tokenizer_that_would_cut_texts_short_does_not() -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    expected = tokenizer_of("byte-level").encode("the quick brown fox jumps over the dog").ids
    assert len(expected) > 4
    assert TextEncoder(backend).encode("the quick brown fox jumps over the dog", "text").ids == expected


def test_other_threads_go_on_while_a_long_text_is_tokenised() -> None:
    encoder = TextEncoder(tokenizer_of("byte-level"))
    done = threading.Event()
    ticks = 0

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = ticks
        encoder._run(encoder.backend, ["the quick brown fox " * 40_000], "text", False, True)
        during = ticks - before
    finally:
        done.set()
        thread.join()
    # With the lock held the other thread would not have run at all.
    assert during > 5


async def test_a_caller_that_leaves_takes_its_waiting_work_along() -> None:
    workers = TextWorkers()
    release, ran = threading.Event(), []
    first = asyncio.ensure_future(workers.run(2**20, lambda: release.wait(30)))
    second = asyncio.ensure_future(workers.run(2**20, lambda: ran.append("left")))
    await asyncio.sleep(0)
    # Short texts pass the long ones.
    assert await workers.run(2000, lambda: "short") == "short"
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    assert await workers.run(2**20, lambda: "next") == "next"
    assert ran == []
