"""Near-duplicates: signatures and buckets are those of datasketch, similarities are exact, and the first one stays."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("datasketch", reason="needs the package datasketch (extra data)")

import datasketch

from ift_training.data.quality.duplicates import PERMUTATIONS, SEED, DuplicateIndex, Runs, Sketches, likenesses, runs
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.words import words

_LEAST = 0.6


def _corpus(count: int, seed: int = 0) -> list[Pair]:
    """Texts of which some are earlier ones with a few words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(300)]
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.4:
            text = list(rng.choice(texts))
            for _ in range(rng.randrange(5)):
                text[rng.randrange(len(text))] = rng.choice(vocabulary)
        else:
            text = rng.choices(vocabulary, k=rng.randrange(20, 60))
        texts.append(text)
    return [Pair(f"r{n}", " ".join(text[:10]), " ".join(text[10:])) for n, text in enumerate(texts)]


def _exact(first: Pair, second: Pair) -> float:
    """Jaccard similarity of sets of runs of three words, by Python's own sets."""

    def shingles(pair: Pair) -> set[tuple[str, ...]]:
        found = set()
        for part in (pair.instruction, pair.response):
            said = words(part)
            found |= {tuple(said[i : i + 3]) for i in range(len(said) - 2)}
        return found

    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


def _likeness(first: Runs, second: Runs) -> float:
    return float(likenesses(first, [second])[0])


def _sketched(pairs: list[Pair], least: float = _LEAST) -> tuple[Sketches, list[Runs]]:
    sketches, own = Sketches(least), [runs(pair, "both", 3) for pair in pairs]
    for each in own:
        sketches.add(each)
    return sketches, own


def test_signatures_and_candidates_are_those_of_the_library() -> None:
    pairs = _corpus(300)
    sketches, own = _sketched(pairs)
    theirs = []
    for each in own:
        sketch = datasketch.MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=lambda value: value & 0xFFFFFFFF)
        for value in each.text.tolist():
            sketch.update(value)
        theirs.append(sketch)
    assert np.array_equal(sketches.signatures(), np.array([sketch.hashvalues for sketch in theirs]))
    table = datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=(sketches.parts, sketches.rows))
    for place, sketch in enumerate(theirs):
        table.insert(place, sketch)
    shared = sketches.shared()
    for place, sketch in enumerate(theirs):
        candidates = {other for other, parts in shared.items() if set(parts) & set(shared.get(place, ()))} - {place}
        assert candidates == set(table.query(sketch)) - {place}


def test_what_is_alike_enough_is_found_with_its_exact_similarity() -> None:
    pairs = _corpus(400)
    sketches, own = _sketched(pairs)
    index, expected, found = DuplicateIndex(sketches.shared(), _LEAST), 0, 0
    for place, pair in enumerate(pairs):
        best = max((_exact(pair, other) for other in pairs[:place]), default=0.0)
        score, other = index.closest(place, own[place]) if place in index else (0.0, -1)
        expected += best >= _LEAST
        if other >= 0:
            assert score == pytest.approx(_exact(pair, pairs[other])) and other < place
            found += score == pytest.approx(best)
        if place in index:
            index.accept(place, own[place])
    assert expected > 50 and found >= 0.97 * expected


def test_estimates_are_close_to_the_exact_similarity() -> None:
    pairs = _corpus(60)
    sketches, own = _sketched(pairs)
    values = sketches.signatures()
    errors = [
        float((values[a] == values[b]).mean()) - _likeness(own[a], own[b]) for a in range(60) for b in range(a)
    ]  # fmt: skip
    # The variance of the estimate is J (1 - J) / 128.
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 0.045


def test_one_question_about_two_texts_is_no_duplicate_and_neither_are_two_about_one() -> None:
    first, second = "the mill was built by two brothers long ago", "a wolf was seen in the valley in the winter"
    asked = Pair("a", "Is the text about a town? Answer yes or no.", "No.", first)
    assert _likeness(runs(asked, "both", 3), runs(Pair("b", asked.instruction, "No.", second), "both", 3)) < 0.1
    other = Pair("c", "Who built it, and when did they do it?", "Two brothers built it.", first)
    assert _likeness(runs(asked, "both", 3), runs(other, "both", 3)) < 0.1
    assert _likeness(runs(asked, "both", 3), runs(asked, "both", 3)) == 1.0


def test_many_are_compared_at_once_as_one_by_one() -> None:
    texts = ["", "a b", "a b c d", "b c d e f", "a b c d e f g"]
    own = [runs(Pair("r", text, "", context), "instruction", 2) for text in texts for context in texts]
    for one in own:
        together = likenesses(one, own)
        for alike, other in zip(together.tolist(), own, strict=True):
            texts_alike, contexts_alike = (
                len(set(a) & set(b)) / (len(set(a) | set(b)) or 1)
                for a, b in zip(map(np.ndarray.tolist, one), map(np.ndarray.tolist, other), strict=True)
            )
            has_context = len(one.context) or len(other.context)
            assert alike == (min(texts_alike, contexts_alike) if has_context else texts_alike)


def test_a_thousand_copies_are_all_held_against_the_first() -> None:
    pairs = [Pair(f"r{n}", "Say the same thing again, please.", "The same thing once more.") for n in range(1000)]
    sketches, own = _sketched(pairs)
    index = DuplicateIndex(sketches.shared(), _LEAST)
    index.accept(0, own[0])
    assert all(index.closest(place, own[place]) == (1.0, 0) for place in range(1, 1000))


def test_empty_texts_are_no_duplicates() -> None:
    sketches, own = _sketched([Pair("a", "", ""), Pair("b", "", "?!")])
    assert sketches.shared() == {} and all(len(each.text) == 0 for each in own)
