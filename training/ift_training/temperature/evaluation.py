"""What the written adapter does on prompts that nothing was chosen by: the same seeds, with T_0 and with its head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.sampling import AdaptiveTemperature
from ift_training.temperature.prompts import TaskPrompt
from ift_training.temperature.rewards import rewards_of
from ift_training.temperature.rollouts import Drawer, request_seed
from ift_training.temperature.verifier import Verifier

_SERIES = 1 << 20
"""Seeds of evaluations are none of the rollouts'."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn: T_0 alone, or with the head of an adapter."""

    temperature: float
    adapter: str = ""
    greedy_below: float = 0.0

    def sampling(self, seed: int, samples: int, max_new_tokens: int) -> SamplingParams:
        """As the engine takes it."""
        return SamplingParams(
            temperature=self.temperature,
            adaptive=AdaptiveTemperature(greedy_below=self.greedy_below) if self.adapter else None,
            seed=seed,
            candidates=samples,
            max_new_tokens=max_new_tokens,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answers to one prompt: mean reward, mean temperature over all tokens, tokens an answer."""

    task: str
    reward: float
    temperature: float
    tokens: float


async def evaluate(
    drawer: Drawer,
    drawing: Drawing,
    prompts: Sequence[TaskPrompt],
    decode: Callable[[list[int]], str],
    verifier: Verifier,
    novelty: dict[str, float],
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
    done: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """An outcome a prompt; the seeds depend on ``seed`` and the prompt's number alone. Raises EngineError."""

    async def one(number: int, prompt: TaskPrompt) -> Outcome:
        sampling = drawing.sampling(request_seed(seed, _SERIES, number), samples, max_new_tokens)
        drawn = await drawer.draw(prompt, sampling, drawing.adapter)
        texts = [decode(ids) for ids in drawn.token_ids]
        rewards = rewards_of(prompt.record, texts, verifier, novelty.get(prompt.task, 0.0))
        used = [token.temperature for own in drawn.statistics for token in own]
        done()
        return Outcome(prompt.task, sum(rewards) / samples, sum(used) / len(used), len(used) / samples)

    return list(await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts))))
