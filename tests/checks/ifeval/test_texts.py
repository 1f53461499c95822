"""Sentences, words in capitals and languages of a text."""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.checks.language.identification import _filled_factory, language_of
from ift_serve.checks.language.sentences import sentence_spans
from ift_serve.checks.language.tokens import capital_words


@pytest.mark.parametrize(
    "sentences",
    [
        ["One.", "Two!", "Three?", "Four"],
        ["He said \"Hi.\"", "Then he left.", "(They saw it.)", "\"Really?\"", "she asked."],
        ["Dr. Smith and Mr. J. Doe of the U.S. Navy met at 5 p.m. with Jones Inc. people."],
        ["It fell 2.5 points.", "Then it rose."],
        ["And so on... and on.", "The end...", "The beginning."],
        ["What?!", "No!!!", "Yes."],
        ["* first item.", "* second item.", "**Bold** it is.", "Plain."],
        ["Go to example.com today.", "It is there."],
        ["“Curly.”", "‘Yes!’", "Then «no».", "Good."],
        ["1.", "Do it.", "2.", "Leave it."],
        ["At 5 p.m. he left.", "They came at 6 p.m.", "They stayed."],
    ],
    ids=lambda sentences: sentences[0],
)  # fmt: skip
@pytest.mark.parametrize("space", [" ", "\n", "\n\n  "])
def test_a_text_is_cut_where_its_sentences_end(sentences: list[str], space: str) -> None:
    text = space.join(sentences)
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_no_text_has_no_sentences(text: str) -> None:
    assert sentence_spans(text) == []


@given(st.text("ab .!?\n\"'()*-1A“", max_size=60) | st.text(max_size=40))
def test_sentences_hold_all_but_space(text: str) -> None:
    spans = sentence_spans(text)
    flat = [place for span in spans for place in span]
    assert flat == sorted(flat)
    assert "".join("".join(text[s:e].split()) for s, e in spans) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NASA, ESA; and Jaxa.", ["NASA", "ESA"]),
        ("I AM 5 U.S. A-B", ["I", "AM", "U.S.", "A-B"]),
        ("DON'T JOHN's CANNOT", ["DO", "N'T", "JOHN", "CAN", "NOT"]),
        ('**GO**NOW (YES) "NO" IT’S—X', ["GO", "NOW", "YES", "NO", "IT", "S", "X"]),
        ("WAIT...NO A,B 3,000A T:1 AND/OR", ["WAIT", "NO", "A", "B", "3,000A", "T:1", "AND/OR"]),
        ("Nothing here: ßa 123 --", []),
        ("ÉTÉ ЖУК", ["ÉTÉ", "ЖУК"]),
    ],
)
def test_words_in_capitals(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in capital_words(text)] == words


needs_langdetect = pytest.mark.skipif(
    importlib.util.find_spec("langdetect") is None, reason="langdetect is not installed; it comes with the extra eval"
)
SHORT = ["Hallo", "a fine day", "CATS ARE GREAT", "si no", "el la le", "Der Hund", "code, test, ship", "nada 42 mas"]


@needs_langdetect
def test_a_language_is_the_same_in_every_thread_and_at_every_call() -> None:
    # Unseeded, most of these change their language from call to call; unguarded, threads see half of the profiles.
    _filled_factory.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(language_of, SHORT * 20))
    first = dict(zip(SHORT, found, strict=False))
    assert found == [first[text] for text in SHORT * 20]


@needs_langdetect
def test_somebody_elses_seed_changes_nothing() -> None:
    from langdetect import DetectorFactory

    before, kept = [language_of(text) for text in SHORT], DetectorFactory.seed
    try:
        for seed in (1, 2, 3):
            DetectorFactory.seed = seed
            assert [language_of(text) for text in SHORT] == before
    finally:
        DetectorFactory.seed = kept


@needs_langdetect
def test_what_has_no_letters_has_no_language() -> None:
    assert language_of("12345 !?") is None and language_of("") is None


@needs_langdetect
def test_a_long_text_takes_no_longer() -> None:
    begun = time.process_time()
    assert language_of("this is the same sentence in english again. " * 100_000) == "en"
    assert time.process_time() - begun < 5
