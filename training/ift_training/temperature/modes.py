"""Modes of reasoning: rewards and costs of each on every prompt, and the classifier that learns to choose.

All ways are tried on every prompt, greedily, so nothing has to be explored: the worth of each, its reward less the
cost of its tokens, is known. The classifier learns ``softmax(worth / 0.02)`` by cross entropy, prompts weighted by
what there is to win. The gradient of the expected worth itself vanishes where a mode has become unlikely because
most prompts are worse off with it, before the few that need it are heard.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.reasoning import Branch, Reasoning, Trace
from ift_serve.modeling.components.heads import MODES, ModeClassifier
from ift_serve.text.phases import Channel, ChannelRouter, PhaseBuilder, PhaseState
from ift_serve.text.prompt import PromptRenderer
from ift_training.base_recipe import RecipeError
from ift_training.temperature.prompts import TaskPrompt
from ift_training.temperature.rollouts import Drawer
from ift_training.temperature.settings import ModeSettings
from ift_training.temperature.verifier import Verifier

_SHARPNESS, _LEAST = 0.02, 0.1
"""The difference in worth by which a mode's share of the target is e times another's; the least weight of a prompt."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One prompt's answers, an entry a mode: what the verifier says, and the tokens that all sequences took."""

    task: str
    rewards: tuple[float, ...]
    tokens: tuple[int, ...]

    def worth(self, cost: float) -> list[float]:
        """Rewards less the cost of their tokens."""
        return [reward - cost * tokens for reward, tokens in zip(self.rewards, self.tokens, strict=True)]


@dataclass(frozen=True, slots=True)
class ModeOutcome:
    """Of one task, or all: rewards and tokens by mode, those of the classifier's choices, how often it chose what."""

    prompts: int
    rewards: dict[str, float]
    tokens: dict[str, float]
    reward: float
    spent: float
    chosen: dict[str, float]


class ModeRunner:
    """Tries the modes on prompts. ``renderer``: the prompts' own, whose markers tell thoughts from answers."""

    def __init__(
        self, drawer: Drawer, renderer: PromptRenderer, verifier: Verifier, settings: ModeSettings, longest: int
    ) -> None:
        """``longest``: tokens of an answer. Raises RecipeError for a model without markers of thoughts."""
        builder = PhaseBuilder.of(renderer)
        if builder.pair is None:
            raise RecipeError("modes: the base model has no markers of thoughts that are known; take `modes` out")
        self._drawer = drawer
        self._renderer = renderer
        self._verifier = verifier
        self._phases = builder.settings()
        self._settings = settings
        self._sampling = SamplingParams(temperature=0.0, max_new_tokens=longest)

    async def try_all(self, prompts: Sequence[TaskPrompt], done: Callable[[], None]) -> list[Tried]:
        """An entry a prompt. Raises EngineError."""

        async def one(prompt: TaskPrompt) -> Tried:
            found = await asyncio.gather(*(self._try(prompt, mode) for mode in MODES))
            done()
            return Tried(prompt.task, tuple(reward for reward, _ in found), tuple(tokens for _, tokens in found))

        return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    async def _try(self, prompt: TaskPrompt, mode: str) -> tuple[float, int]:
        drawn = await self._drawer.draw(
            prompt, self._sampling, strategy="sample" if mode == "none" else mode, reasoning=self._reasoning(mode)
        )
        return self._verifier(prompt.record, self._answer(prompt, drawn.token_ids[0])), drawn.tokens

    def _reasoning(self, mode: str) -> Reasoning | None:
        settings = self._settings
        return {"none": None, "trace": Trace(budget=settings.budget), "branch": Branch(width=settings.branches)}[mode]

    def _answer(self, prompt: TaskPrompt, token_ids: list[int]) -> str:
        """The text without its thought; nothing where that never ended."""
        state = PhaseState.begin(self._phases, prompt.prompt.token_ids, prompt.prompt.segment_ids)
        router = ChannelRouter(state, self._renderer.decoder)
        pieces = [*router.push(token_ids), *router.flush()]
        return "".join(piece.text for piece in pieces if piece.channel is Channel.ANSWER).strip()


def learn_modes(
    classifier: ModeClassifier,
    training: tuple[Tensor, Sequence[Tried]],
    held_out: tuple[Tensor, Sequence[Tried]],
    settings: ModeSettings,
) -> int:
    """Train the classifier on c ``[N, d_c]`` and what was tried, and leave it at the step whose choices are worth most
    on the held-out prompts, among equals where it is surest of them. Returns that step."""
    vectors, worth = training[0], torch.tensor([one.worth(settings.token_cost) for one in training[1]])
    apart, apart_worth = held_out[0], torch.tensor([one.worth(settings.token_cost) for one in held_out[1]])
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    best, kept, most = 0, {n: t.clone() for n, t in classifier.state_dict().items()}, (-math.inf, -math.inf)
    for step in range(settings.steps + 1):
        with torch.no_grad():
            logits = classifier(apart)
            gained = float(apart_worth.gather(1, logits.argmax(1, keepdim=True)).mean())
            found = (round(gained, 6), -float(_loss(logits, apart_worth)))
        if found > most:
            best, most = step, found
            kept = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
        if step == settings.steps:
            break
        optimiser.zero_grad()
        _loss(classifier(vectors), worth).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    classifier.load_state_dict(kept)
    return best


def _loss(logits: Tensor, worth: Tensor) -> Tensor:
    """Weighted cross entropy, of logits and worth ``[N, 3]``."""
    weights = worth.amax(1) - worth.amin(1) + _LEAST
    own = -(torch.softmax(worth / _SHARPNESS, 1) * torch.log_softmax(logits, 1)).sum(1)
    return (weights * own).sum() / weights.sum()


@torch.no_grad()
def compare_modes(classifier: ModeClassifier, vectors: Tensor, tried: Sequence[Tried]) -> dict[str, ModeOutcome]:
    """By task, ``all`` first: what the classifier's choices come to beside each mode for everything."""
    choices = classifier(vectors).argmax(1).tolist()
    tasks = ["all", *sorted({one.task for one in tried})]
    return {
        task: _outcome([(c, one) for c, one in zip(choices, tried, strict=True) if task in ("all", one.task)])
        for task in tasks
    }


def _outcome(chosen: list[tuple[int, Tried]]) -> ModeOutcome:
    count = len(chosen)
    counts = Counter(choice for choice, _ in chosen)

    def mean(values: list[float]) -> float:
        return sum(values) / count

    return ModeOutcome(
        prompts=count,
        rewards={mode: mean([one.rewards[m] for _, one in chosen]) for m, mode in enumerate(MODES)},
        tokens={mode: mean([float(one.tokens[m]) for _, one in chosen]) for m, mode in enumerate(MODES)},
        reward=mean([one.rewards[choice] for choice, one in chosen]),
        spent=mean([float(one.tokens[choice]) for choice, one in chosen]),
        chosen={mode: counts[m] / count for m, mode in enumerate(MODES)},
    )
