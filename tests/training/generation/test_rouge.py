"""ROUGE-L against the reference package, and the index against comparing with everything."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ift_training.data.generation.rouge import SimilarityIndex, rouge_l, words

_SCORER = RougeScorer(["rougeL"], use_stemmer=False)
_VOCABULARY = "write a the short poem about your dog in two lines list of ten numbers"
_WORDS = st.sampled_from(_VOCABULARY.split(" "))
_TEXTS = st.lists(_WORDS, max_size=14).map(" ".join)


def reference(first: str, second: str) -> float:
    return float(_SCORER.score(second, first)["rougeL"].fmeasure)


@given(st.text(max_size=40), st.text(max_size=40))
@example("Ä word, 2nd: İstanbul's", "a WORD — 2nd istanbul s")
@example("", "")
@settings(max_examples=150, deadline=None)
def test_any_two_texts_score_as_the_reference_package_scores_them(first: str, second: str) -> None:
    assert rouge_l(words(first), words(second)) == pytest.approx(reference(first, second), abs=1e-12)


@given(_TEXTS, _TEXTS)
@settings(max_examples=300, deadline=None)
def test_texts_that_share_words_score_as_the_reference_package_scores_them(first: str, second: str) -> None:
    assert rouge_l(words(first), words(second)) == pytest.approx(reference(first, second), abs=1e-12)


@given(st.lists(_TEXTS, min_size=1, max_size=25), _TEXTS, st.sampled_from([0.3, 0.5, 0.7, 0.9]))
@settings(max_examples=200, deadline=None)
def test_the_index_finds_what_comparing_with_everything_finds(pool: list[str], text: str, threshold: float) -> None:
    index = SimilarityIndex(threshold)
    for member in pool:
        index.add(member)
    scores = [rouge_l(words(text), words(member)) for member in pool]
    best = max(range(len(pool)), key=lambda place: (scores[place], -place))
    found = index.most_similar(text)
    assert found == ((scores[best], best) if scores[best] > threshold else None)


def test_common_words_are_not_read_and_nothing_is_missed() -> None:
    """A pool so large that the lists of its frequent words are left out."""
    rng = random.Random(0)
    frequent, rare = ["the", "a", "of", "write"], [f"w{number}" for number in range(60)]
    pool = [" ".join(rng.choices(frequent, k=4) + rng.choices(rare, k=rng.randint(1, 4))) for _ in range(400)]
    index = SimilarityIndex(0.7)
    for text in pool:
        found = index.most_similar(text)
        scores = [rouge_l(words(text), words(member)) for member in pool[: len(index)]]
        best = max(scores, default=0.0)
        assert found == ((best, scores.index(best)) if best > 0.7 else None)
        index.add(text)


@pytest.mark.parametrize(("common", "first", "second"), [(7, 10, 10), (14, 20, 20), (21, 40, 20)])
def test_a_similarity_of_exactly_the_threshold_is_not_above_it(common: int, first: int, second: int) -> None:
    """By the fraction, whatever rounding makes of precision and recall."""
    shared = [f"s{number}" for number in range(common)]
    one = " ".join([*shared, *(f"a{number}" for number in range(first - common))])
    other = " ".join([*shared, *(f"b{number}" for number in range(second - common))])
    index = SimilarityIndex(0.7)
    index.add(one)
    assert index.most_similar(other) is None
    closer = " ".join([*shared, "a0", *(f"b{number}" for number in range(second - common - 1))])
    assert index.most_similar(closer) is not None


def test_all_short_texts_of_two_words() -> None:
    """Every text of up to four words, against every other."""
    pool = [" ".join(text) for length in range(5) for text in product("ab", repeat=length)]
    index = SimilarityIndex(0.7)
    for text in pool:
        index.add(text)
    for text in pool:
        best = max(reference(text, member) for member in pool)
        found = index.most_similar(text)
        assert (found.score if found else 0.0) == pytest.approx(best if best > 0.7 else 0.0)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, float("nan")])
def test_thresholds_that_mean_nothing_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        SimilarityIndex(threshold)
