"""Density: from one to a hundred words to use in one answer, and how many of them are used.

After IFScale (Jaroslawicz et al., 2025, arXiv 2507.11538), with words and prompts of our own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ift_serve.checks.phrases import Include
from ift_serve.checks.words import listed
from ift_serve.client import Prompt
from ift_serve.evaluation.tasks.task import CONSTRAINTS, KIND, ConstraintVerdict, Item, Label, Task, Verdicts

LEVELS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100)
"""Words to use in one answer."""
_PROMPTS = 10
"""Of each level, each with words of its own."""
_KINDS = ("a short report", "a letter to a friend", "a story", "a page of a diary", "a newspaper article")
_WORDS = listed(
    """anchor apple arrow autumn baker balcony basket bear bicycle blanket boat bottle branch bread bridge brother
    bucket butter button cabin camera candle canyon carpet castle cathedral chain chair cheese chimney circle clock
    cloud coast coffee copper corner cotton cousin creek curtain dancer desert doctor donkey drawer engine farmer
    feather fence finger fire flower forest fountain garden gate giant glacier glass glove gold grandfather harbour hat
    hill honey horse hotel island jacket journey kettle key kitchen ladder lake lamp lantern leather lemon letter
    library lion market meadow mirror moon morning mountain museum music needle neighbour night oak ocean onion orange
    orchard oven owl painter palace paper pencil pepper piano pillow pocket pond potato rabbit railway rain ribbon rice
    river road roof rope rose saddle sailor salt school scissors shadow sheep shoe shoulder silver sister smoke snow
    soldier spoon square stable stairs star station stone storm street sugar summer table teacher tent thunder ticket
    tiger tower train valley village violin wagon wall water wheel whistle window winter wolf wood"""
)
"""None is part of a phrase that another would complete, and each is a word by itself."""


class Density(Task):
    """Prompts that ask for more and more words; a word counts by itself, in any case."""

    name = "density"
    columns = ("strict",)
    max_new_tokens = 1024

    def __init__(self) -> None:
        self._items = [_item(level, number) for level in LEVELS for number in range(_PROMPTS)]

    def items(self) -> Sequence[Item]:
        return self._items

    def judge(self, item: Item, response: str) -> Verdicts:
        checks: tuple[Include, ...] = item.source
        return {"strict": [ConstraintVerdict.of("include", check.verdict(response)) for check in checks]}


def _item(level: int, number: int) -> Item:
    draw = random.Random(f"density/{level}/{number}")
    words = draw.sample(_WORDS, level)
    asked = "this word" if level == 1 else f"every one of these {level} words"
    text = f"Write {draw.choice(_KINDS)}. Use {asked} exactly as written: {', '.join(words)}."
    checks = tuple(Include(word=word) for word in words)
    labels: dict[str, Label] = {CONSTRAINTS: level, KIND: "check"}
    return Item(f"{level}/{number}", Prompt(instruction=text), text, ("include",) * level, checks, labels)
