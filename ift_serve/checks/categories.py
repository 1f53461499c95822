"""Kinds of things with the words that belong to each: what a list of animals may hold."""

from __future__ import annotations

import functools
from typing import Literal

from ift_serve.checks.words import listed

Category = Literal["animal", "food", "tool", "colour", "city", "profession"]


CATEGORIES: dict[Category, tuple[str, ...]] = {
    "animal": listed(
        """cat dog horse cow sheep goat pig lion tiger bear wolf fox deer rabbit mouse rat bird eagle owl duck goose
        swan crow parrot snake frog turtle fish shark whale dolphin seal crab bee ant spider camel zebra monkey
        elephant"""
    ),
    "food": listed(
        """apple pear plum peach cherry grape lemon orange banana melon mango bread cheese butter rice pasta soup salad
        carrot potato onion tomato bean pea corn cabbage garlic honey sugar salt pepper cake pie cookie egg milk tea
        coffee juice nut"""
    ),
    "tool": listed(
        """hammer saw drill knife spoon fork pen pencil brush broom shovel rake axe rope ladder needle scissors wrench
        bucket key lamp clock compass ruler"""
    ),
    "colour": listed("red blue green yellow black white brown pink purple grey gold silver orange violet"),
    "city": listed(
        """Paris London Rome Berlin Madrid Vienna Oslo Dublin Athens Lisbon Prague Warsaw Cairo Lagos Nairobi Tokyo
        Seoul Delhi Mumbai Lima Quito Boston Denver Austin Toronto Sydney Perth Geneva Milan Naples Porto Riga Tunis
        Dakar Havana Bogota Helsinki Krakow Munich Zurich"""
    ),
    "profession": listed(
        """baker doctor teacher farmer painter singer pilot nurse lawyer writer driver dancer judge tailor sailor miner
        plumber waiter butcher gardener engineer chemist librarian soldier"""
    ),
}
PLURALS: dict[Category, str] = {
    "animal": "animals", "food": "foods", "tool": "tools", "colour": "colours", "city": "cities",
    "profession": "professions",
}  # fmt: skip


@functools.cache
def words_of(category: Category) -> frozenset[str]:
    """The words of a kind, in small letters."""
    return frozenset(word.lower() for word in CATEGORIES[category])


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0].lower() in "aeiou" else f"a {word}"
