"""Families of arithmetic and comparison."""

from __future__ import annotations

import random

from ift_serve.checks.answers import LastNumber, Steps
from ift_serve.checks.answers import YesNo as YesNoCheck
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.vocabulary import FOODS, NAMES


class Arithmetic(Family):
    """Add or subtract two numbers and give the result alone."""

    name, kind = "arithmetic", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Numbers below 50."""
        a, b = rng.randint(0, 49), rng.randint(0, 49)
        if rng.random() < 0.5:
            sign, result, steps = "+", a + b, _sum_by_digits(a, b)
        else:
            a, b = max(a, b), min(a, b)
            middle = a - b // 10 * 10
            sign, result = "-", a - b
            steps = f"{a} - {b // 10 * 10} = {middle}. {middle} - {b % 10} = {a - b}."
        instruction = rng.choice((f"What is {a} {sign} {b}?", f"Calculate {a} {sign} {b}.", f"{a} {sign} {b} ="))
        return self.make(instruction, str(result), (a, sign, b)).reasoned(steps)


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
    """A story of two changes to a count."""

    name, kind = "word_problem", "reasoning"

    def generate(self, rng: random.Random) -> Example:
        """Numbers up to 30, never below zero on the way."""
        who, other = rng.sample(NAMES, 2)
        food = rng.choice(FOODS)
        start, gain = rng.randint(2, 20), rng.randint(1, 10)
        loss = rng.randint(1, start + gain - 1)
        middle, end = start + gain, start + gain - loss
        story = rng.choice(
            (
                f"{who} has {start} {food}s. {who} buys {gain} more and gives {loss} to {other}.",
                f"{who} has {start} {food}s, gets {gain} from {other} and eats {loss}.",
            )
        )
        instruction = f"{story} How many {food}s does {who} have now?"
        steps, conclusion = f"{start} + {gain} = {middle}. {middle} - {loss} = {end}.", f"The answer is {end}."
        example = self.make(instruction, f"{steps} {conclusion}", (start, gain, loss, food), LastNumber(value=end))
        return example.reasoned(steps, conclusion)


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
