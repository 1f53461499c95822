"""Runs of Evol-Instruct, as the command starts them, and a model that rewrites tasks without being one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from ift_serve.client import AsyncClient
from ift_serve.v1 import inference_pb2 as pb
from ift_training.data.generation.calls import Servers
from ift_training.data.generation.evolve.run import Evolution
from ift_training.data.generation.settings import EvolutionRecipe
from ift_training.data.generation.store import RecordStore


def evolve(address: str, **fields: Any) -> None:
    """Run Evol-Instruct against a server."""
    recipe = EvolutionRecipe.parse(fields)

    async def run() -> None:
        with RecordStore(recipe.store) as store:
            connect = lambda server: AsyncClient(server or address, retries=0)  # noqa: E731
            async with Servers(connect, store, recipe.seed, recipe.timeout, attempts=3) as servers:
                await Evolution(recipe, store, servers, lambda progress: None).run()

    asyncio.run(run())


def rewriter(text: str, request: pb.GenerateRequest) -> str:
    """Rewrites a task by a word more, answers with a sentence, and says no when it is asked whether tasks are one."""
    rng = random.Random(f"{text}|{request.sampling.seed}")
    word = f"word{rng.randrange(10_000)}"
    task = text.partition("Task: ")[2].partition("\n")[0]
    if text.startswith("Rewrite the task"):
        return f"Added: the {word}\nNew task: {task} Mind the {word} of a long day."
    if text.startswith("Make the input"):
        context = text.partition("Input: ")[2].partition("\n")[0]
        return f"Added: {word}\nNew input: {context}, {word}"
    if text.startswith("Below is a task"):
        return f"New task: Tell how {word} came to the town of {rng.choice('ABCDEF')}."
    if text.startswith("Here are two tasks"):
        return "No, the second asks for more."
    if text.startswith("Someone asked"):
        return f"And what about the {word}?"
    return f"The answer is about {word} and the harbour, in the morning."
