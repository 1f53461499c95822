"""Families that rearrange the words they are given: case, reversal, sorting, counting, position, repetition."""

from __future__ import annotations

import random

from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.vocabulary import NOUNS, WORDS

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "last")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


class Case(Family):
    """Rewrite words in capitals, in small letters or with capital initials."""

    name, kind = "case", "factual"

    def generate(self, rng: random.Random) -> Example:
        """A phrase of two to four words."""
        mode = rng.choice(("upper", "lower", "title"))
        words = rng.sample(WORDS, rng.randint(2, 4))
        text = " ".join(words)
        if mode == "upper":
            instruction = rng.choice(("Write this in capital letters.", "Rewrite in upper case."))
            return self.make(instruction, text.upper(), (mode, *words), context=text)
        if mode == "lower":
            instruction = rng.choice(("Write this in small letters.", "Rewrite in lower case."))
            return self.make(instruction, text, (mode, *words), context=text.upper())
        instruction = rng.choice(("Capitalise every word.", "Write each word with a capital first letter."))
        return self.make(instruction, text.title(), (mode, *words), context=text)


class Reverse(Family):
    """Give words or digits in the opposite order."""

    name, kind = "reverse", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Three to five items."""
        items = rng.sample(WORDS, rng.randint(3, 5))
        if rng.random() < 0.3:
            items = [str(rng.randint(0, 9)) for _ in range(rng.randint(3, 5))]
        instruction = rng.choice(
            ("Reverse the order of the words.", "Write these in reverse order.", "Say this backwards, word by word.")
        )
        return self.make(instruction, " ".join(reversed(items)), tuple(items), context=" ".join(items))


class Sort(Family):
    """Order words by the alphabet or numbers by size."""

    name, kind = "sort", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Three to five items."""
        count = rng.randint(3, 5)
        if rng.random() < 0.5:
            words = rng.sample(WORDS, count)
            instruction = rng.choice(("Sort these words alphabetically.", "Put the words in alphabetical order."))
            return self.make(instruction, ", ".join(sorted(words)), tuple(words), context=", ".join(words))
        numbers = rng.sample(range(100), count)
        down = rng.random() < 0.5
        order = "largest to smallest" if down else "smallest to largest"
        answer = ", ".join(str(n) for n in sorted(numbers, reverse=down))
        instruction = rng.choice((f"Sort these numbers from {order}.", f"Order the numbers from {order}."))
        return self.make(instruction, answer, (down, *numbers), context=", ".join(map(str, numbers)))


class Count(Family):
    """Count words, or how often one of them occurs."""

    name, kind = "count", "factual"

    def generate(self, rng: random.Random) -> Example:
        """A list of two to six words with repeats."""
        if rng.random() < 0.5:
            words = rng.sample(WORDS, rng.randint(2, 6))
            instruction = rng.choice(("How many words are in this list?", "Count the words."))
            return self.make(instruction, _NUMBERS[len(words)], tuple(words), context=", ".join(words))
        target, other, third = rng.sample(WORDS, 3)
        times = rng.randint(1, 4)
        words = [target] * times + [other] * rng.randint(1, 2) + [third] * rng.randint(0, 1)
        rng.shuffle(words)
        instruction = rng.choice((f"How many times does {target} appear?", f"Count how often {target} occurs."))
        return self.make(instruction, _NUMBERS[times], (target, *words), context=", ".join(words))


class Position(Family):
    """Pick the word at a place in a list."""

    name, kind = "position", "factual"

    def generate(self, rng: random.Random) -> Example:
        """A list of three to five words."""
        words = rng.sample(WORDS, rng.randint(3, 5))
        index = rng.randrange(len(words))
        ordinal = "last" if index == len(words) - 1 and rng.random() < 0.6 else _ORDINALS[index]
        instruction = rng.choice((f"What is the {ordinal} word?", f"Give the {ordinal} word of the list."))
        return self.make(instruction, words[index], (ordinal, *words), context=", ".join(words))


class Repeat(Family):
    """Say a word or a pair of words several times."""

    name, kind = "repeat", "factual"

    def generate(self, rng: random.Random) -> Example:
        """One or two nouns, two to five times."""
        words = " ".join(rng.sample(NOUNS, rng.randint(1, 2)))
        times = rng.randint(2, 5)
        instruction = rng.choice(
            (f'Repeat "{words}" {_NUMBERS[times]} times.', f'Say "{words}" {_NUMBERS[times]} times.')
        )
        return self.make(instruction, " ".join([words] * times), (words, times))
