"""Families that answer from what they are given: a paragraph or a table."""

from __future__ import annotations

import random

from ift_serve.checks.categories import article
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.vocabulary import CITIES, COLOURS, FOODS, NAMES, OBJECTS, PROFESSIONS


class Extract(Family):
    """Find a person's detail in a paragraph about two people."""

    name, kind = "extract", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Two people, each with a city, a profession, an age and a favourite food."""
        people = rng.sample(NAMES, 2)
        details = [
            {"city": c, "profession": p, "age": str(a), "food": f}
            for c, p, a, f in zip(
                rng.sample(CITIES, 2),
                rng.sample(PROFESSIONS, 2),
                rng.sample(range(18, 80), 2),
                rng.sample(FOODS, 2),
                strict=True,
            )
        ]
        asked = rng.choice(("city", "profession", "age", "food"))
        sentences = []
        for person, detail in zip(people, details, strict=True):
            parts = {
                "city": f"{person} lives in {detail['city']}.",
                "profession": f"{person} works as {article(detail['profession'])}.",
                "age": f"{person} is {detail['age']} years old.",
                "food": f"{person} likes {detail['food']}.",
            }
            chosen = [asked, *rng.sample([k for k in parts if k != asked], rng.randint(1, 2))]
            rng.shuffle(chosen)
            sentences.append(" ".join(parts[k] for k in chosen))
        rng.shuffle(sentences)
        who = rng.randrange(2)
        question = {
            "city": ("Where does {} live?", "In which city does {} live?"),
            "profession": ("What is the job of {}?", "What does {} work as?"),
            "age": ("How old is {}?", "What is the age of {}?"),
            "food": ("What does {} like?", "Which food does {} like?"),
        }[asked]
        answer = details[who][asked]
        instruction = rng.choice(question).format(people[who])
        return self.make(instruction, answer, (people[who], asked, answer), context=" ".join(sentences))


class Table(Family):
    """Read one cell of a small table."""

    name, kind = "table", "factual"

    def generate(self, rng: random.Random) -> Example:
        """Two to four rows of item, colour and price."""
        rows = rng.randint(2, 4)
        items, colours = rng.sample(OBJECTS, rows), rng.sample(COLOURS, rows)
        prices = [str(n) for n in rng.sample(range(1, 100), rows)]
        lines = [" | ".join(row) for row in zip(items, colours, prices, strict=True)]
        context = "\n".join(["item | colour | price", *lines])
        row = rng.randrange(rows)
        if rng.random() < 0.5:
            instruction = rng.choice((f"What colour is the {items[row]}?", f"Give the colour of the {items[row]}."))
            return self.make(instruction, colours[row], (items[row], colours[row]), context=context)
        instruction = rng.choice((f"What is the price of the {items[row]}?", f"How much is the {items[row]}?"))
        return self.make(instruction, prices[row], (items[row], prices[row]), context=context)
