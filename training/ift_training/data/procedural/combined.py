"""Plain requests with requirements on top: what a better follower has to learn."""

from __future__ import annotations

import dataclasses
import json
import random

from ift_training.data.procedural.constraints import check_constraint, parse_json, random_frame, wording
from ift_training.data.procedural.example import Example, Family, Verdict
from ift_training.data.procedural.lookup import Extract
from ift_training.data.procedural.texts import Reverse, Sort
from ift_training.data.procedural.words import ListItems


class Combined(Family):
    """A request from another family, with one or two requirements on the form of the answer."""

    name, kind, is_constraint = "combined", "creative", True

    def __init__(self) -> None:
        self._plain = {family.name: family for family in (Extract(), Reverse(), Sort(), ListItems())}

    def generate(self, rng: random.Random) -> Example:
        """Lists take a form or capitals; anything takes a beginning or an ending."""
        plain = rng.choice(list(self._plain.values())).generate(rng)
        output = plain.output
        chosen: list[dict[str, object]] = []
        if ", " in output and rng.random() < 0.6:
            form = rng.choice(("bullets", "json", "upper"))
            items = output.split(", ")
            output = {
                "bullets": "\n".join(f"- {item}" for item in items), "json": json.dumps(items), "upper": output.upper()
            }[form]  # fmt: skip
            chosen.append({"type": form})
        if not chosen or (chosen[0]["type"] == "upper" and rng.random() < 0.3):
            frame = dict(random_frame(rng))
            if chosen:
                frame["phrase"] = str(frame["phrase"]).upper()
            phrase = frame["phrase"]
            output = f"{phrase}: {output}" if frame["type"] == "begin" else f"{output}. {phrase}"
            chosen.append(frame)
        instruction = " ".join([plain.instruction, *(wording(c, rng) for c in chosen)])
        key = f"{self.name}|{plain.key}|{json.dumps(chosen, sort_keys=True)}"
        facts = {**plain.facts, "plain": plain.family, "reference": plain.output}
        return dataclasses.replace(
            plain, family=self.name, kind=self.kind, instruction=instruction, output=output, key=key, facts=facts,
            constraints=tuple(chosen),
        )  # fmt: skip

    def check(self, example: Example, response: str) -> Verdict:
        """Every requirement holds, and the answer itself is right once the form is taken off."""
        for constraint in example.constraints:
            verdict = check_constraint(constraint, response)
            if not verdict:
                return verdict
        plain = self._plain[example.facts["plain"]]
        original = dataclasses.replace(example, family=plain.name, kind=plain.kind, output=example.facts["reference"])
        return plain.check(original, _unformed(example, response))


def _unformed(example: Example, response: str) -> str:
    """The response without the parts that the requirements put there, in the plain family's own form."""
    text = response.strip()
    types = {c["type"]: c for c in example.constraints}
    if "begin" in types:
        text = text[len(types["begin"]["phrase"]) :].lstrip(" :,.\n")
    if "end" in types:
        text = text.rstrip(".!")
        text = text[: len(text) - len(types["end"]["phrase"])].rstrip(" .,\n")
    if "bullets" in types:
        text = ", ".join(line[2:].strip() for line in text.splitlines())
    if "json" in types:
        loaded = parse_json(text)
        text = ", ".join(map(str, loaded)) if isinstance(loaded, list) else str(loaded)
    if "upper" in types:
        reference = {w.upper(): w for w in example.facts["reference"].replace(",", " ").split()}
        text = ", ".join(reference.get(w, w.lower()) for w in text.split(", "))
    return text
