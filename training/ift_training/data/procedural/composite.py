"""Families that ask for several things at once. The embedded base model is never trained on them."""

from __future__ import annotations

import random

from ift_serve.checks import Check
from ift_serve.checks.answers import LastNumber, Steps
from ift_serve.checks.categories import CATEGORIES, PLURALS
from ift_serve.checks.forms import Bullets, Commas, Json
from ift_serve.checks.listing import ListItems
from ift_serve.checks.phrases import Avoid, Begin, End, Include, MaxWords, Upper
from ift_training.data.procedural.constraints import wording
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.stories import sentence
from ift_training.data.procedural.vocabulary import NAMES, NOUNS, PHRASES

_COUNTS = ("zero", "one", "two", "three", "four", "five")


class BothEnds(Family):
    """Begin and end a sentence about a person with given phrases."""

    name, kind, is_constraint = "both_ends", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """Two different phrases and a name."""
        who, noun = rng.choice(NAMES), rng.choice(NOUNS)
        first, last = rng.sample(PHRASES, 2)
        frame = (Begin(phrase=first), End(phrase=last))
        asked = " ".join(wording(c, rng) for c in frame)
        output = f"{first}: {sentence(rng, who, noun)} {last}"
        return self.make(f"Write about {who}. {asked}", output, (who, first, last), *frame, Include(word=who))


class ListShape(Family):
    """Name things of a kind in a given form, each form with one more requirement."""

    name, kind, is_constraint = "list_shape", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """Bullets in capitals, a JSON list, or commas with an end phrase."""
        group, count = rng.choice(tuple(CATEGORIES)), rng.randint(2, 4)
        words = rng.sample(CATEGORIES[group], count)
        form = rng.choice(("bullets", "json", "commas"))
        if form == "bullets":
            asked: tuple[Check, ...] = (Bullets(), Upper())
            output = "\n".join(f"- {word.upper()}" for word in words)
        elif form == "json":
            asked = (Json(), MaxWords(limit=count))
            output = "[" + ", ".join(f'"{word}"' for word in words) + "]"
        else:
            asked = (Commas(), Upper())
            output = ", ".join(words).upper()
        sentences = " ".join(wording(c, rng) for c in asked)
        return self.make(
            f"Name {_COUNTS[count]} {PLURALS[group]}. {sentences}",
            output,
            (group, count, form, *words[:1]),
            *asked,
            ListItems(category=group, count=count, joiners=()),
        )


class WordsInAndOut(Family):
    """A sentence with two words to use and one to avoid."""

    name, kind, is_constraint = "words_in_and_out", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """The banned word is the common article, so that the usual sentence will not do."""
        who = rng.choice(NAMES)
        first, second = rng.sample(NOUNS, 2)
        asked = (Include(word=first), Include(word=second), Avoid(word="the"))
        sentences = " ".join(wording(c, rng) for c in asked)
        output = f"{who} took a {first} and a {second} every day."
        return self.make(
            f"Write a sentence about {who}. {sentences}", output, (who, first, second), *asked, Include(word=who)
        )


class ShortSentence(Family):
    """A sentence with a given word, in very few words, in capitals or with a beginning."""

    name, kind, is_constraint = "short_sentence", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """Four to six words at most."""
        who, noun, limit = rng.choice(NAMES), rng.choice(NOUNS), rng.randint(4, 6)
        asked = (Include(word=noun), MaxWords(limit=limit), Upper())
        sentences = " ".join(wording(c, rng) for c in asked)
        output = f"{who} saw a {noun}.".upper()
        return self.make(
            f"Write a sentence about {who}. {sentences}", output, (who, noun, limit), *asked, Include(word=who)
        )


class LongSum(Family):
    """Add three numbers with the running sums written out."""

    name, kind, is_constraint = "long_sum", "reasoning", True

    def generate(self, rng: random.Random) -> Example:
        """Three two-digit numbers."""
        a, b, c = (rng.randint(10, 60) for _ in range(3))
        steps = f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}."
        instruction = rng.choice((f"Add {a}, {b} and {c} step by step.", f"What is {a} + {b} + {c}? Show your steps."))
        return self.make(
            instruction, f"{steps} The answer is {a + b + c}.", (a, b, c), Steps(), LastNumber(value=a + b + c)
        )
