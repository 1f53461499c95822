"""Short stories with required words."""

from __future__ import annotations

import random

from ift_training.data.procedural.constraints import check_constraint
from ift_training.data.procedural.example import PASSED, Example, Family, Verdict
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
        return self.make(instruction, story, (who, first, second), required=[who, first, second])

    def check(self, example: Example, response: str) -> Verdict:
        """At least two sentences, with the person and both words."""
        for word in example.facts["required"]:
            verdict = check_constraint({"type": "include", "word": word}, response)
            if not verdict:
                return verdict
        enough = sum(response.count(mark) for mark in ".!?") >= 2
        return PASSED if enough else Verdict(False, "fewer than two sentences")
