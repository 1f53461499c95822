"""Short stories with required words."""

from __future__ import annotations

import random

from ift_serve.checks.phrases import Include, MinSentences
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.vocabulary import ADJECTIVES, NAMES, NOUNS, PLACES, VERBS


def sentence(rng: random.Random, who: str, noun: str) -> str:
    """One sentence in which a person does something with a thing."""
    adjective = rng.choice(ADJECTIVES)
    patterns = (
        f"{who} {rng.choice(VERBS)} the {adjective} {noun}.",
        f"{who} {rng.choice(VERBS)} a {noun} in the {rng.choice(PLACES)}.",
        f"Near the {rng.choice(PLACES)}, {who} {rng.choice(VERBS)} the {noun}.",
        f"The {noun} made {who} very {adjective}.",
        f"Every day {who} was with the {adjective} {noun}.",
    )
    return rng.choice(patterns)


class Story(Family):
    """A story of three sentences about a person, with two required words."""

    name, kind = "story", "creative"

    def generate(self, rng: random.Random) -> Example:
        """A name and two nouns."""
        who = rng.choice(NAMES)
        first, second = rng.sample(NOUNS, 2)
        third = rng.choice(("At last", "In the end", "That night"))
        instruction = rng.choice(
            (
                f"Write a short story about {who} with the words {first} and {second}.",
                f"Tell a story about {who}. Use the words {first} and {second}.",
            )
        )
        ending = f"{third} {who} was {rng.choice(ADJECTIVES)}."
        story = f"{sentence(rng, who, first)} {sentence(rng, who, second)} {ending}"
        checks = [*(Include(word=word) for word in (who, first, second)), MinSentences(least=2)]
        return self.make(instruction, story, (who, first, second), *checks)
