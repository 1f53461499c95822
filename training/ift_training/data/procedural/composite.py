"""Families that ask for several things at once. The embedded base model is never trained on them."""

from __future__ import annotations

import random
import re

from ift_training.data.procedural.constraints import check_constraint, wording
from ift_training.data.procedural.equations import check_last_number, check_steps
from ift_training.data.procedural.example import PASSED, Example, Family, Verdict
from ift_training.data.procedural.stories import sentence
from ift_training.data.procedural.vocabulary import CATEGORIES, NAMES, NOUNS, PHRASES, PLURALS

_COUNTS = ("zero", "one", "two", "three", "four", "five")


class _Constrained(Family):
    """A family whose examples carry all their requirements as constraints."""

    is_constraint = True

    def check(self, example: Example, response: str) -> Verdict:
        """Every requirement holds, then whatever the family adds."""
        for constraint in example.facts["requirements"]:
            verdict = check_constraint(constraint, response)
            if not verdict:
                return verdict
        return self.check_content(example, response)

    def check_content(self, example: Example, response: str) -> Verdict:
        """Nothing more by default."""
        return PASSED


class BothEnds(_Constrained):
    """Begin and end a sentence about a person with given phrases."""

    name, kind = "both_ends", "creative"

    def generate(self, rng: random.Random) -> Example:
        """Two different phrases and a name."""
        who, noun = rng.choice(NAMES), rng.choice(NOUNS)
        first, last = rng.sample(PHRASES, 2)
        requirements = [
            {"type": "begin", "phrase": first},
            {"type": "end", "phrase": last},
            {"type": "include", "word": who},
        ]
        asked = " ".join(wording(c, rng) for c in requirements[:2])
        output = f"{first}: {sentence(rng, who, noun)} {last}"
        return self.make(f"Write about {who}. {asked}", output, (who, first, last), requirements=requirements)


class ListShape(_Constrained):
    """Name things of a kind in a given form, each form with one more requirement."""

    name, kind = "list_shape", "creative"

    def generate(self, rng: random.Random) -> Example:
        """Bullets in capitals, a JSON list, or commas with an end phrase."""
        group, count = rng.choice(tuple(CATEGORIES)), rng.randint(2, 4)
        words = rng.sample(CATEGORIES[group], count)
        form = rng.choice(("bullets", "json", "commas"))
        if form == "bullets":
            requirements: list[dict[str, object]] = [{"type": "bullets"}, {"type": "upper"}]
            output = "\n".join(f"- {word.upper()}" for word in words)
        elif form == "json":
            requirements = [{"type": "json"}, {"type": "max_words", "limit": count}]
            output = "[" + ", ".join(f'"{word}"' for word in words) + "]"
        else:
            requirements = [{"type": "commas"}, {"type": "upper"}]
            output = ", ".join(words).upper()
        asked = " ".join(wording(c, rng) for c in requirements)
        return self.make(
            f"Name {_COUNTS[count]} {PLURALS[group]}. {asked}", output, (group, count, form, *words[:1]),
            requirements=requirements, group=group, count=count,
        )  # fmt: skip

    def check_content(self, example: Example, response: str) -> Verdict:
        """The right number of different words of the kind."""
        words = [word.lower() for word in re.findall(r"[A-Za-z]+", response)]
        allowed = {word.lower() for word in CATEGORIES[example.facts["group"]]}
        if wrong := next((word for word in words if word not in allowed), None):
            return Verdict(False, f"{wrong!r} is of another kind")
        if len(words) != example.facts["count"] or len(set(words)) != len(words):
            return Verdict(False, f"not {example.facts['count']} different words")
        return PASSED


class WordsInAndOut(_Constrained):
    """A sentence with two words to use and one to avoid."""

    name, kind = "words_in_and_out", "creative"

    def generate(self, rng: random.Random) -> Example:
        """The banned word is the common article, so that the usual sentence will not do."""
        who = rng.choice(NAMES)
        first, second = rng.sample(NOUNS, 2)
        requirements = [
            {"type": "include", "word": first},
            {"type": "include", "word": second},
            {"type": "avoid", "word": "the"},
        ]
        asked = " ".join(wording(c, rng) for c in requirements)
        output = f"{who} took a {first} and a {second} every day."
        return self.make(
            f"Write a sentence about {who}. {asked}", output, (who, first, second),
            requirements=[*requirements, {"type": "include", "word": who}],
        )  # fmt: skip


class ShortSentence(_Constrained):
    """A sentence with a given word, in very few words, in capitals or with a beginning."""

    name, kind = "short_sentence", "creative"

    def generate(self, rng: random.Random) -> Example:
        """Four to six words at most."""
        who, noun, limit = rng.choice(NAMES), rng.choice(NOUNS), rng.randint(4, 6)
        requirements: list[dict[str, object]] = [
            {"type": "include", "word": noun},
            {"type": "max_words", "limit": limit},
            {"type": "upper"},
        ]
        asked = " ".join(wording(c, rng) for c in requirements)
        output = f"{who} saw a {noun}.".upper()
        return self.make(
            f"Write a sentence about {who}. {asked}", output, (who, noun, limit),
            requirements=[*requirements, {"type": "include", "word": who}],
        )  # fmt: skip


class LongSum(Family):
    """Add three numbers with the running sums written out."""

    name, kind, is_constraint = "long_sum", "reasoning", True

    def generate(self, rng: random.Random) -> Example:
        """Three two-digit numbers."""
        a, b, c = (rng.randint(10, 60) for _ in range(3))
        steps = f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}."
        instruction = rng.choice((f"Add {a}, {b} and {c} step by step.", f"What is {a} + {b} + {c}? Show your steps."))
        return self.make(instruction, f"{steps} The answer is {a + b + c}.", (a, b, c), numbers=[a, b, c])

    def check(self, example: Example, response: str) -> Verdict:
        """Two true equations at least, and the right number last."""
        return check_steps(response) and check_last_number(sum(example.facts["numbers"]), response)
