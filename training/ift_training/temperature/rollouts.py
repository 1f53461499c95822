"""Draws answers from the engine, many prompts in flight at once, each request with a seed of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams, TokenStatistics
from ift_serve.engine.protocol.reasoning import Reasoning
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_training.temperature.prompts import TaskPrompt
from ift_training.temperature.rollout_file import Answers, RolloutFile


@dataclass(slots=True)
class Drawn:
    """The answers to one request, by candidate: token ids with the end token, and each token's statistics.

    ``tokens``: drawn and forced, in all sequences, those that nobody was sent included.
    """

    token_ids: Answers
    statistics: list[list[TokenStatistics]] = field(default_factory=list)
    tokens: int = 0


def request_seed(seed: int, *parts: int) -> int:
    """A seed for one request: 63 bits that depend on the recipe's seed and on which request it is."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Drawer:
    """Asks the engine. ``ends``: tokens that end an answer, beside those that the model names."""

    def __init__(self, engine: BaseEngineClient, ends: Sequence[int], in_flight: int) -> None:
        self._engine = engine
        self._ends = list(ends)
        self._places = asyncio.Semaphore(in_flight)
        self._asked = 0

    async def draw(
        self,
        prompt: TaskPrompt,
        sampling: SamplingParams,
        adapter: str = "",
        strategy: str = "sample",
        reasoning: Reasoning | None = None,
    ) -> Drawn:
        """All candidates' answers to a prompt. Raises EngineError."""
        async with self._places:
            self._asked += 1
            request = GenerateRequest(
                request_id=f"rollout {self._asked}",
                token_ids=prompt.prompt.token_ids,
                segment_ids=prompt.prompt.segment_ids,
                sampling=sampling,
                end_ids=self._ends,
                whole=True,
                adapter=adapter,
                strategy=strategy,
                reasoning=reasoning,
            )
            drawn = Drawn([[] for _ in range(sampling.candidates)], [[] for _ in range(sampling.candidates)])
            async for output in self._engine.generate(request):
                drawn.token_ids[output.candidate] += output.token_ids
                drawn.statistics[output.candidate] += output.statistics
                if output.usage is not None:
                    drawn.tokens = output.usage.drawn_tokens + output.usage.forced_tokens
            return drawn


async def roll_out(
    drawer: Drawer,
    prompts: Sequence[TaskPrompt],
    file: RolloutFile,
    temperatures: Sequence[float],
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
    done: Callable[[], None],
) -> None:
    """Fill the file with ``samples`` answers to each prompt at each temperature; ``done`` is called after each line.

    Raises EngineError; what has come is kept.
    """

    async def one(prompt: int, temperature: int) -> None:
        sampling = SamplingParams(
            temperature=temperatures[temperature],
            seed=request_seed(seed, prompt, temperature),
            candidates=samples,
            max_new_tokens=max_new_tokens,
        )
        drawn = await drawer.draw(prompts[prompt], sampling)
        file.add((prompt, temperature), drawn.token_ids)
        done()

    await asyncio.gather(*(one(*place) for place in file.missing(len(prompts), len(temperatures))))
