"""Families about kinds of things: classify, list, odd one out."""

from __future__ import annotations

import random

from ift_serve.checks import listing
from ift_serve.checks.categories import CATEGORIES, PLURALS
from ift_training.data.procedural.example import Example, Family

_NUMBERS = ("zero", "one", "two", "three", "four", "five")


class Classify(Family):
    """Say which of three kinds a word belongs to."""

    name, kind = "classify", "factual"

    def generate(self, rng: random.Random) -> Example:
        """One right kind and two others, in any order."""
        kinds = rng.sample(tuple(CATEGORIES), 3)
        word = rng.choice([w for w in CATEGORIES[kinds[0]] if sum(w in v for v in CATEGORIES.values()) == 1])
        options = rng.sample(kinds, 3)
        listed = f"{options[0]}, {options[1]} or {options[2]}"
        instruction = rng.choice((f"What kind of thing is {word}: {listed}?", f"Classify {word} as {listed}."))
        return self.make(instruction, kinds[0], (word, *options))


class OddOneOut(Family):
    """Find the word that is of another kind than the rest."""

    name, kind = "odd_one_out", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Three words of one kind and one of another."""
        main, other = rng.sample(tuple(CATEGORIES), 2)
        odd = rng.choice([w for w in CATEGORIES[other] if w not in CATEGORIES[main]])
        words = [*rng.sample(CATEGORIES[main], 3), odd]
        rng.shuffle(words)
        instruction = rng.choice(("Which word does not fit?", "Find the odd one out."))
        return self.make(instruction, odd, tuple(sorted(words)), context=", ".join(words))


class ListItems(Family):
    """Name a number of things of a kind; any that fit will do."""

    name, kind = "list_items", "creative"

    def generate(self, rng: random.Random) -> Example:
        """Two to five things, perhaps starting with a letter that several have."""
        group = rng.choice(tuple(CATEGORIES))
        count = rng.randint(2, 5)
        words = rng.sample(CATEGORIES[group], count)
        instruction = rng.choice(
            (f"List {_NUMBERS[count]} {PLURALS[group]}.", f"Name {_NUMBERS[count]} {PLURALS[group]}.")
        )
        check = listing.ListItems(category=group, count=count)
        return self.make(instruction, ", ".join(words), (group, count, *words[:2]), check)
