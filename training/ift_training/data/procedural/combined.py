"""Plain requests with requirements on top: what a better follower has to learn."""

from __future__ import annotations

import dataclasses
import json
import random

from ift_serve.checks import Check
from ift_serve.checks.content import Content
from ift_serve.checks.forms import Bullets, Json
from ift_serve.checks.phrases import Upper
from ift_training.data.procedural.constraints import random_frame, wording
from ift_training.data.procedural.example import Example, Family
from ift_training.data.procedural.lookup import Extract
from ift_training.data.procedural.texts import Reverse, Sort
from ift_training.data.procedural.words import ListItems


class Combined(Family):
    """A request from another family, with one or two requirements on the form of the answer."""

    name, kind, is_constraint = "combined", "creative", True

    def __init__(self) -> None:
        self._plain: tuple[Family, ...] = (Extract(), Reverse(), Sort(), ListItems())

    def generate(self, rng: random.Random) -> Example:
        """Lists take a form or capitals; anything takes a beginning or an ending."""
        plain = rng.choice(self._plain).generate(rng)
        output = plain.output
        chosen: list[Check] = []
        if ", " in output and rng.random() < 0.6:
            form = rng.choice((Bullets, Json, Upper))()
            items = output.split(", ")
            output = {
                "bullets": "\n".join(f"- {item}" for item in items),
                "json": json.dumps(items),
                "upper": output.upper(),
            }[form.type]
            chosen.append(form)
        if not chosen or (chosen[0].type == "upper" and rng.random() < 0.3):
            frame = random_frame(rng)
            if chosen:
                frame = type(frame)(phrase=frame.phrase.upper())
            phrase = frame.phrase
            output = f"{phrase}: {output}" if frame.type == "begin" else f"{output}. {phrase}"
            chosen.append(frame)
        instruction = " ".join([plain.instruction, *(wording(c, rng) for c in chosen)])
        key = f"{self.name}|{plain.key}|{json.dumps([c.model_dump() for c in chosen], sort_keys=True)}"
        content = Content.model_validate({"forms": chosen, "reference": plain.output, "plain": plain.checks[0]})
        return dataclasses.replace(
            plain,
            family=self.name,
            kind=self.kind,
            instruction=instruction,
            output=output,
            key=key,
            checks=(*chosen, content),
        )
