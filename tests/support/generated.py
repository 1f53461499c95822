"""Runs that make data, as the commands start them, and a model that writes tasks without being one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from ift_serve.client import AsyncClient
from ift_serve.v1 import inference_pb2 as pb
from ift_training.data.generation.calls import Servers
from ift_training.data.generation.record import GeneratedRecord
from ift_training.data.generation.run import Progress
from ift_training.data.generation.self_instruct.run import SelfInstruct
from ift_training.data.generation.settings import GenerationRecipe
from ift_training.data.generation.store import RecordStore

VERBS = ("Name", "List", "Describe", "Compare", "Explain", "Suggest", "Summarise", "Translate", "Rewrite", "Count")
THINGS = tuple(f"thing{number}" for number in range(60))


def generate(address: str, **fields: Any) -> Progress:
    """Run Self-Instruct against a server; what was counted last."""
    recipe = GenerationRecipe.parse(fields)
    last = Progress()

    def show(progress: Progress) -> None:
        nonlocal last
        last = progress

    async def run() -> None:
        with RecordStore(recipe.store) as store:
            connect = lambda server: AsyncClient(server or address, retries=0)  # noqa: E731
            async with Servers(connect, store, recipe.seed, recipe.timeout, attempts=3) as servers:
                await SelfInstruct(recipe, store, servers, show).run()

    asyncio.run(run())
    return last


def records(store: Path) -> list[GeneratedRecord]:
    """Everything that a store holds, in order."""
    with RecordStore(store) as opened:
        return list(opened.records())


def task_writer(text: str, request: pb.GenerateRequest) -> str:
    """Goes on with lists of tasks, says what is a classification, gives examples, and agrees with two of three."""
    rng = random.Random(f"{text}|{request.sampling.seed}")
    if text.startswith("Here is a varied list"):
        entries = [
            f"{rng.choice(VERBS)} {' '.join(rng.sample(THINGS, rng.randint(3, 6)))}." for _ in range(rng.randint(1, 4))
        ]
        return " " + "".join(f"{entry}\n{number}. " for number, entry in enumerate(entries, start=10))
    if text.endswith("Is it classification?"):
        return " Yes" if rng.random() < 0.3 else " No"
    if text.startswith("Give a label"):
        return "\nClass label: A\nInput: first\nClass label: B\nInput: second"
    if text.startswith("Give examples"):
        return "\nExample 1\nInput: one\nOutput: two\nExample 2\nOutput: three"
    return rng.choice(("Yes", "Yes, it does", "No"))
