"""All families, in a fixed order."""

from __future__ import annotations

import functools

from ift_training.data.procedural.combined import Combined
from ift_training.data.procedural.composite import BothEnds, ListShape, LongSum, ShortSentence, WordsInAndOut
from ift_training.data.procedural.example import Family
from ift_training.data.procedural.formats import AvoidWord, Bullets, Commas, Frame, IncludeWord, Json
from ift_training.data.procedural.lookup import Extract, Table
from ift_training.data.procedural.numbers import Arithmetic, ArithmeticSteps, Compare, WordProblem, YesNo
from ift_training.data.procedural.stories import Story
from ift_training.data.procedural.texts import Case, Count, Position, Repeat, Reverse, Sort
from ift_training.data.procedural.words import Classify, ListItems, OddOneOut


@functools.cache
def families() -> dict[str, Family]:
    """Families by name."""
    every: tuple[type[Family], ...] = (
        Case, Reverse, Sort, Count, Position, Repeat, Extract, Table, Arithmetic, ArithmeticSteps, WordProblem,
        Compare, YesNo, Classify, OddOneOut, ListItems, Bullets, Json, Commas, Frame, IncludeWord, AvoidWord, Story,
        Combined, BothEnds, ListShape, WordsInAndOut, ShortSentence, LongSum,
    )  # fmt: skip
    return {kind.name: kind() for kind in every}


def family(name: str) -> Family:
    """The family of that name; KeyError lists the known ones."""
    try:
        return families()[name]
    except KeyError:
        raise KeyError(f"no family {name!r}; there are {', '.join(families())}") from None
