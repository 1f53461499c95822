"""Families of arithmetic and comparison."""

from __future__ import annotations

import random

from ift_serve.checks.answers import LastNumber, Steps
from ift_serve.checks.answers import YesNo as YesNoCheck
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.vocabulary import FOODS, NAMES

DIRECT_SHARE = 0.6
"""Of the answers to plain questions, those that say the result at once; the others write their steps out first."""

_OPENINGS = (
    "First, ", "We get ", "At first, ", "Steps: ", "So ", "Let us see: ", "To begin, ", "Here ", "Now ", "Well, ",
    "In steps: ", "Start: ", "By parts: ", "Okay, ",
)  # fmt: skip
"""Each begins with another word and each is rare, as texts that happen to explain themselves are among others: the
likeliest answer is the short one, and the steps are among the next likely first words."""


def _answer(rng: random.Random, direct: str, steps: tuple[str, str], result: int) -> str:
    """The sentence that says the result, or the steps to it behind an opening."""
    if rng.random() < DIRECT_SHARE:
        return direct
    return f"{rng.choice(_OPENINGS)}{steps[0]}. Then {steps[1]}. The answer is {result}."


def _thought(steps: tuple[str, str], check: tuple[str, str]) -> str:
    """Steps without spaces, a line each, and a paragraph that goes back from the result to check it."""
    return "\n\n".join("\n".join(lines).replace(" ", "") for lines in (steps, check))


class Arithmetic(Family):
    """Add or subtract two numbers and say the result, with or without the steps to it."""

    name, kind = "arithmetic", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Numbers below 50; the second is added or taken away by its tens, then its ones."""
        a, b = rng.randint(0, 49), rng.randint(0, 49)
        sign, back = ("+", "-") if rng.random() < 0.5 else ("-", "+")
        if sign == "-":
            a, b = max(a, b), min(a, b)
        tens, ones = b // 10 * 10, b % 10
        middle, result = (a + tens, a + b) if sign == "+" else (a - tens, a - b)
        steps = f"{a} {sign} {tens} = {middle}", f"{middle} {sign} {ones} = {result}"
        check = f"{result} {back} {ones} = {middle}", f"{middle} {back} {tens} = {a}"
        instruction = rng.choice((f"What is {a} {sign} {b}?", f"Calculate {a} {sign} {b}.", f"{a} {sign} {b} ="))
        answer = _answer(rng, f"The result of {a} {sign} {b} is {result}.", steps, result)
        example = self.make(instruction, answer, (a, sign, b), LastNumber(value=result))
        return example.reasoned(_thought(steps, check), str(result))


class ArithmeticSteps(Family):
    """Add two numbers with the steps written out; the steps must be there and the result right."""

    name, kind = "arithmetic_steps", "reasoning"

    def generate(self, rng: random.Random) -> Example:
        """Two-digit numbers, tens and ones added apart."""
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        instruction = rng.choice((f"Add {a} and {b} step by step.", f"What is {a} + {b}? Show your steps."))
        steps = _sum_by_digits(a, b)
        return self.make(instruction, f"{steps} The answer is {a + b}.", (a, b), Steps(), LastNumber(value=a + b))


class WordProblem(Family):
    """A story of two changes to a count; the answer says what is left, with or without the steps to it."""

    name, kind = "word_problem", "reasoning"

    def generate(self, rng: random.Random) -> Example:
        """Numbers up to 49, never below zero on the way."""
        who, other = rng.sample(NAMES, 2)
        food = rng.choice(FOODS)
        start, gain = rng.randint(2, 30), rng.randint(1, 19)
        loss = rng.randint(1, start + gain - 1)
        middle, end = start + gain, start + gain - loss
        story = rng.choice(
            (
                f"{who} has {start} {food}s. {who} buys {gain} more and gives {loss} to {other}.",
                f"{who} has {start} {food}s, gets {gain} from {other} and eats {loss}.",
            )
        )
        instruction = f"{story} How many {food}s does {who} have now?"
        steps = f"{start} + {gain} = {middle}", f"{middle} - {loss} = {end}"
        check = f"{end} + {loss} = {middle}", f"{middle} - {gain} = {start}"
        answer = _answer(rng, f"{who} has {end} {food}s left in the end.", steps, end)
        example = self.make(instruction, answer, (start, gain, loss, food), LastNumber(value=end))
        return example.reasoned(_thought(steps, check), str(end))


class Compare(Family):
    """Which of two numbers, or of two people's counts, is larger or smaller."""

    name, kind = "compare", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Numbers below 100, or two people with things."""
        a, b = rng.sample(range(100), 2)
        more = rng.random() < 0.5
        if rng.random() < 0.5:
            word = "larger" if more else "smaller"
            instruction = rng.choice((f"Which number is {word}: {a} or {b}?", f"Which is {word}, {a} or {b}?"))
            return self.make(instruction, str(max(a, b) if more else min(a, b)), (more, a, b))
        who, other = rng.sample(NAMES, 2)
        food = rng.choice(FOODS)
        word = "more" if more else "fewer"
        context = f"{who} has {a} {food}s. {other} has {b} {food}s."
        winner = who if (a > b) == more else other
        return self.make(f"Who has {word} {food}s?", winner, (more, a, b, who, other), context=context)


class YesNo(Family):
    """A yes-or-no question with the reason asked for."""

    name, kind = "yes_no", "reasoning"

    def generate(self, rng: random.Random) -> Example:
        """About the order or the parity of numbers."""
        if rng.random() < 0.6:
            a, b = rng.sample(range(100), 2)
            relation = rng.choice(("larger", "smaller"))
            true = (a > b) == (relation == "larger")
            actual = "larger" if a > b else "smaller"
            instruction = f"Is {a} {relation} than {b}? Give a reason."
            answer = f"{'Yes' if true else 'No'}, because {a} is {actual} than {b}."
            return self.make(
                instruction, answer, (a, relation, b), YesNoCheck(yes=true, reason=(str(a), actual, str(b)))
            )
        n = rng.randint(0, 99)
        parity = rng.choice(("even", "odd"))
        actual = "odd" if n % 2 else "even"
        answer = f"{'Yes' if parity == actual else 'No'}, because {n} ends in {n % 10}, so it is {actual}."
        return self.make(
            f"Is {n} {parity}? Give a reason.", answer, (n, parity), YesNoCheck(yes=parity == actual, reason=(actual,))
        )


def _sum_by_digits(a: int, b: int) -> str:
    """Tens and ones of two numbers below 100, added apart."""
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return f"{a // 10 * 10} + {b // 10 * 10} = {tens}. {a % 10} + {b % 10} = {ones}. {tens} + {ones} = {a + b}."
