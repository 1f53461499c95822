"""Families whose request is a form: bullets, JSON, commas, beginnings, endings, words to use or avoid."""

from __future__ import annotations

import json
import random

from ift_serve.checks.categories import CATEGORIES
from ift_serve.checks.forms import JsonItems
from ift_serve.checks.listing import NamesOne
from ift_serve.checks.phrases import Avoid, Include, MinWords
from ift_training.data.procedural.constraints import random_frame, wording
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.stories import sentence
from ift_training.data.procedural.vocabulary import NAMES, NOUNS, WORDS

_SENTENCE = MinWords(least=4)


class Bullets(Family):
    """Turn a list into bullet points."""

    name, kind, is_constraint = "bullets", "factual", True

    def generate(self, rng: random.Random) -> Example:
        """Two to four words."""
        words = rng.sample(WORDS, rng.randint(2, 4))
        instruction = rng.choice(("Write these as bullet points.", "Make a bullet list."))
        return self.make(instruction, "\n".join(f"- {w}" for w in words), tuple(words), context=", ".join(words))


class Json(Family):
    """Turn a list into a JSON array of strings."""

    name, kind, is_constraint = "json", "factual", True

    def generate(self, rng: random.Random) -> Example:
        """Two to four words."""
        words = rng.sample(WORDS, rng.randint(2, 4))
        instruction = rng.choice(("Write these as a JSON list.", "Convert to a JSON array."))
        return self.make(
            instruction, json.dumps(words), tuple(words), JsonItems(items=tuple(words)), context=", ".join(words)
        )


class Commas(Family):
    """Turn bullet points or lines into a comma-separated list."""

    name, kind, is_constraint = "commas", "factual", True

    def generate(self, rng: random.Random) -> Example:
        """Two to four words, one a line."""
        words = rng.sample(WORDS, rng.randint(2, 4))
        mark = rng.choice(("- ", ""))
        instruction = rng.choice(("Write these as a comma-separated list.", "Join the lines with commas."))
        return self.make(instruction, ", ".join(words), tuple(words), context="\n".join(mark + w for w in words))


class Frame(Family):
    """Name a thing of a kind, and begin or end the answer with a phrase."""

    name, kind, is_constraint = "frame", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """Any word of the kind answers the question."""
        group = rng.choice(tuple(CATEGORIES))
        word = rng.choice(CATEGORIES[group])
        frame = random_frame(rng)
        instruction = f"Name {'an' if group[0] in 'aeiou' else 'a'} {group}. {wording(frame, rng)}"
        phrase = frame.phrase
        output = f"{phrase}: {word}" if frame.type == "begin" else f"{word}. {phrase}"
        named = NamesOne(category=group, apart_from=phrase)
        return self.make(instruction, output, (group, frame.type, phrase), frame, named)


class IncludeWord(Family):
    """Write a sentence about a person with a given word in it."""

    name, kind, is_constraint = "include_word", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """A name and a noun."""
        who, noun = rng.choice(NAMES), rng.choice(NOUNS)
        instruction = rng.choice(
            (f'Write a sentence about {who} with the word "{noun}".', f'Write about {who} and use the word "{noun}".')
        )
        return self.make(
            instruction, sentence(rng, who, noun), (who, noun), _SENTENCE, Include(word=who), Include(word=noun)
        )


class AvoidWord(Family):
    """Write a sentence about a person without a given, tempting word."""

    name, kind, is_constraint = "avoid_word", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """The word to avoid is one that the sentences are often made of."""
        who, banned = rng.choice(NAMES), rng.choice(("the", "found", "saw", "took", "in", "and", "was", "bought"))
        for _ in range(200):
            text = sentence(rng, who, rng.choice(NOUNS))
            if banned not in text.lower().rstrip(".").split():
                break
        else:
            text = f"{who} sings every day."
        instruction = f'Write a sentence about {who}. Do not use the word "{banned}".'
        return self.make(instruction, text, (who, banned), _SENTENCE, Include(word=who), Avoid(word=banned))
