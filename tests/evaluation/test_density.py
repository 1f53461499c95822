"""Prompts of many words to use, and the curve of how many are used."""

from __future__ import annotations

import pytest

from ift_serve.checks.words import find_word
from ift_serve.evaluation.breakdowns import curves
from ift_serve.evaluation.rows import Row, row_of
from ift_serve.evaluation.serving.outcomes import Answer, Failure
from ift_serve.evaluation.tasks.density import LEVELS, Density
from ift_serve.evaluation.tasks.task import Item


def _row(item: Item, answer: str) -> Row:
    return row_of("base", Density(), item, 0, Answer(answer))


def test_levels_go_from_one_word_to_a_hundred_different_ones() -> None:
    items = Density().items()
    assert (LEVELS[0], LEVELS[-1]) == (1, 100)
    for item in items:
        words = [check.word for check in item.source]
        assert len(set(words)) == len(words) == item.labels["constraints"]
        assert all(find_word(item.text, word) for word in words)
    assert [item.text for item in items] == [item.text for item in Density().items()]
    assert len({item.key for item in items}) == len(items)


def test_the_curve_is_the_share_of_words_that_are_used_at_each_level() -> None:
    items = {level: [i for i in Density().items() if i.labels["constraints"] == level] for level in (1, 10)}
    rows = [_row(items[1][0], items[1][0].source[0].word.upper()), _row(items[1][1], "nothing of it")]
    rows += [_row(item, " ".join(check.word for check in item.source[:4])) for item in items[10]]
    rows.append(row_of("base", Density(), items[1][2], 0, Failure("UNAVAILABLE", "gone")))
    one, ten = curves(rows)
    assert (one.constraints, one.kept, one.whole, one.prompts) == (1, 0.5, 0.5, 2)
    assert (ten.constraints, ten.whole, ten.prompts) == (10, 0.0, 10)
    assert ten.kept == pytest.approx(0.4) and ten.low < 0.4 < ten.high


def test_a_part_of_a_longer_word_is_not_the_word() -> None:
    item = next(item for item in Density().items() if item.labels["constraints"] == 1)
    word = item.source[0].word
    assert not _row(item, f"{word}ish things").passes("strict")


def test_an_empty_answer_uses_none() -> None:
    item = Density().items()[-1]
    verdicts = _row(item, "  ").verdicts["strict"]
    assert len(verdicts) == 100 and not any(v.passed for v in verdicts)
