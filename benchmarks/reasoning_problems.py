"""The problems of the reasoning benchmark: generated families or a file of GSM8K, each with a number as its answer."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ift_serve.checks import Check
from ift_serve.checks.extraction import last_written_number


@dataclass(frozen=True)
class Problem:
    """A question and the value that its answer ends with. checks: those of its family, which look at the form too."""

    family: str
    question: str
    value: Fraction
    checks: tuple[Check, ...] = ()

    def solved_by(self, response: str) -> bool:
        """Whether the last number of a response is the value; a response without a number solves nothing."""
        return number(response) == self.value

    def as_asked(self, response: str) -> bool:
        """Whether a response is right in the form that was asked for, such as the number alone."""
        return all(check.verdict(response, self.question) for check in self.checks) and self.solved_by(response)


def number(text: str) -> Fraction | None:
    """The last number as people write it, by value."""
    found = last_written_number(text)
    return None if found is None else Fraction(found.text.replace("$", "").replace(",", ""))


def generated(families: list[str], count: int, seed: int) -> list[Problem]:
    """``count`` different problems of the test split of each procedural family whose answers end in a number."""
    from ift_training.data.procedural import draw, family

    problems = []
    for name in families:
        seen: set[str] = set()
        rng = random.Random(f"{seed}|{name}")
        for _ in range(1000 * count):
            if len(seen) == count:
                break
            example = draw(family(name), "test", rng)
            value = number(example.output)
            if value is None:
                raise ValueError(f"{name}: its reference {example.output!r} ends in no number")
            if example.key not in seen:
                seen.add(example.key)
                problems.append(Problem(name, example.prompt, value, example.checks))
    return problems


def from_file(path: Path, count: int, seed: int) -> list[Problem]:
    """A seeded choice of the lines of a GSM8K file: ``question``, and ``answer`` with the value behind ``####``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    chosen = random.Random(seed).sample(lines, min(count, len(lines)))
    records = [json.loads(line) for line in chosen]
    problems = []
    for record in records:
        value = number(record["answer"].rpartition("####")[2])
        if value is None:
            raise ValueError(f"{path}: {record['question'][:60]!r} has no number behind ####")
        problems.append(Problem(path.parent.name, record["question"], value))
    return problems
