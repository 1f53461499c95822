"""Families whose request is a form: bullets, JSON, commas, beginnings, endings, words to use or avoid."""

from __future__ import annotations

import json
import random

from ift_training.data.procedural.constraints import check_constraint, parse_json, random_frame, wording
from ift_training.data.procedural.example import PASSED, ExactFamily, Example, Family, Verdict
from ift_training.data.procedural.stories import sentence
from ift_training.data.procedural.vocabulary import CATEGORIES, NAMES, NOUNS, PLURALS, WORDS


class Bullets(ExactFamily):
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
        return self.make(instruction, json.dumps(words), tuple(words), context=", ".join(words), items=words)

    def check(self, example: Example, response: str) -> Verdict:
        """Parses to exactly the items, whatever the spacing."""
        verdict = check_constraint({"type": "json"}, response)
        if not verdict:
            return verdict
        return (
            PASSED if parse_json(response) == example.facts["items"] else Verdict(False, "other items than asked for")
        )


class Commas(ExactFamily):
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
        phrase = frame["phrase"]
        output = f"{phrase}: {word}" if frame["type"] == "begin" else f"{word}. {phrase}"
        return self.make(instruction, output, (group, frame["type"], phrase), frame=frame, group=group)

    def check(self, example: Example, response: str) -> Verdict:
        """The phrase in its place and a word of the kind somewhere."""
        verdict = check_constraint(example.facts["frame"], response)
        if not verdict:
            return verdict
        group = example.facts["group"]
        # The phrase itself names nothing.
        rest = response.replace(example.facts["frame"]["phrase"], " ", 1)
        named = any(check_constraint({"type": "include", "word": word}, rest) for word in CATEGORIES[group])
        return PASSED if named else Verdict(False, f"names none of the {PLURALS[group]}")


class IncludeWord(Family):
    """Write a sentence about a person with a given word in it."""

    name, kind, is_constraint = "include_word", "creative", True

    def generate(self, rng: random.Random) -> Example:
        """A name and a noun."""
        who, noun = rng.choice(NAMES), rng.choice(NOUNS)
        instruction = rng.choice(
            (f'Write a sentence about {who} with the word "{noun}".', f'Write about {who} and use the word "{noun}".')
        )
        return self.make(instruction, sentence(rng, who, noun), (who, noun), required=[who, noun])

    def check(self, example: Example, response: str) -> Verdict:
        """Name and word are there, in a sentence of at least four words."""
        return _sentence_with(example.facts["required"], response)


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
        return self.make(instruction, text, (who, banned), required=[who], banned=banned)

    def check(self, example: Example, response: str) -> Verdict:
        """The name is there, the banned word is not."""
        verdict = check_constraint({"type": "avoid", "word": example.facts["banned"]}, response)
        return verdict if not verdict else _sentence_with(example.facts["required"], response)


def _sentence_with(words: list[str], response: str) -> Verdict:
    if len(response.split()) < 4:
        return Verdict(False, "not a sentence of at least four words")
    for word in words:
        verdict = check_constraint({"type": "include", "word": word}, response)
        if not verdict:
            return verdict
    return PASSED
