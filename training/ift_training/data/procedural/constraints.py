"""Requirements on the form of an answer, in the words that ask for them."""

from __future__ import annotations

import random

from ift_serve.checks import Check
from ift_serve.checks.phrases import Begin, End
from ift_training.data.procedural.vocabulary import PHRASES

_WORDINGS: dict[str, tuple[str, ...]] = {
    "begin": ('Begin your answer with "{phrase}".', 'Start with the words "{phrase}".'),
    "end": ('End your answer with "{phrase}".', 'Finish with the words "{phrase}".'),
    "include": ('Use the word "{word}".', 'Include the word "{word}".'),
    "avoid": ('Do not use the word "{word}".', 'Avoid the word "{word}".'),
    "bullets": ("Format the answer as bullet points.", "Use bullet points."),
    "json": ("Answer as a JSON list.", "Format the answer as JSON."),
    "commas": ("Separate the items by commas.", "Give a comma-separated list."),
    "upper": ("Answer in capital letters.", "Use only capital letters."),
    "max_words": ("Use at most {limit} words.", "No more than {limit} words."),
    "min_words": ("Use at least {least} words.", "Write {least} words or more."),
    "min_sentences": ("Write at least {least} sentences.", "Use {least} sentences or more."),
}


def wording(check: Check, rng: random.Random) -> str:
    """The requirement as a sentence of the instruction. Raises KeyError for a check that has no words of its own."""
    return rng.choice(_WORDINGS[check.type]).format(**check.model_dump())


def random_frame(rng: random.Random) -> Begin | End:
    """A begin or end requirement with a phrase, for any kind of answer."""
    kind = rng.choice((Begin, End))
    return kind(phrase=rng.choice(PHRASES))
