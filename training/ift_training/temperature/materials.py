"""Materials of a temperature training: prompts, the encoder that made them, and the answers' rewards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.text.ends import answer_ends
from ift_training.base_recipe import RecipeError
from ift_training.data.encode import Encoder
from ift_training.data.lost import check_lost
from ift_training.data.selection import prepare
from ift_training.prepare import open_encoder
from ift_training.progress import reading, stage
from ift_training.temperature.prompts import TaskPrompt, held_out_prompts, training_prompts
from ift_training.temperature.rewards import rewards_of
from ift_training.temperature.rollout_file import Answers
from ift_training.temperature.settings import TemperatureRecipe
from ift_training.temperature.verifier import Verifier, check_judged, make_verifier


@dataclass(frozen=True, slots=True)
class Materials:
    """``training``, ``choosing`` and ``judging``: the prompts to learn from, to choose the step by, for the card.

    ``references``: held-out records whose answers confidences are calibrated on, those two among them.
    """

    recipe: TemperatureRecipe
    directory: str
    encoder: Encoder
    verifier: Verifier
    training: list[TaskPrompt]
    choosing: list[TaskPrompt]
    judging: list[TaskPrompt]
    references: list[TaskPrompt]

    @property
    def prompts(self) -> list[TaskPrompt]:
        """All that answers are drawn to; rollouts number them."""
        return [*self.training, *self.choosing, *self.judging]

    @property
    def ends(self) -> list[int]:
        """Tokens that end an answer, beside the model's own."""
        return answer_ends(self.encoder.renderer)

    @property
    def key(self) -> str:
        """Of all that the answers depend on."""
        drawn = self.recipe.rollouts
        parts = [
            BaseMetadata.of_directory(Path(self.directory)).fingerprint,
            [prompt.prompt.token_ids for prompt in self.prompts],
            [drawn.temperatures, drawn.samples, drawn.max_new_tokens, self.recipe.seed, self.ends],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def decode(self, token_ids: list[int]) -> str:
        """An answer's text, without control tokens."""
        return str(self.encoder.renderer.encoder.backend.decode(token_ids, skip_special_tokens=True))

    def rewards(self, prompt: TaskPrompt, answers: list[Answers]) -> list[float]:
        """Of the answers to one prompt, temperature after temperature; each is new, or not, among those of its own.

        Raises RecipeError.
        """
        novelty = self.recipe.reward.novelty.get(prompt.task, 0.0)
        found = list[float]()
        for own in answers:
            found += rewards_of(prompt.record, [self.decode(ids) for ids in own], self.verifier, novelty)
        return found


def gather(recipe: TemperatureRecipe, console: Console, *, shown: bool) -> Materials:
    """Read the recipe's sources and choose the prompts. Raises RecipeError, SourceError, TemplateError."""
    verifier = make_verifier(recipe.reward)
    stage(f"opening the tokenizer of {recipe.base}", shown=shown)
    encoder = open_encoder(recipe)
    with reading(console, shown=shown) as counted:
        data = prepare(recipe.sources, recipe.validation, encoder, recipe.seed, progress=counted)
    check_lost(data.report, recipe.max_lost)
    drawn = recipe.rollouts
    longest = recipe.max_length - drawn.max_new_tokens
    if longest < 1:
        raise RecipeError(f"rollouts.max_new_tokens: {drawn.max_new_tokens} leaves no room within max_length")
    training = training_prompts(data.train, encoder, drawn.prompts, longest)
    # A reference has a token at least, so that there are never more of them than tokens wanted.
    most = max(drawn.held_out, recipe.calibration.tokens)
    references = held_out_prompts(data.validation, encoder, most, longest, training)
    apart = references[: drawn.held_out]
    for field, found in (("prompts", training), ("held_out", apart)):
        if len(found) < 2:
            raise RecipeError(
                f"rollouts.{field}: {len(found)} different prompts fit into max_length; give more records"
            )
    check_judged(recipe.reward, [prompt.record for prompt in (*training, *apart)])
    choosing, judging = _halves(apart)
    return Materials(recipe, recipe.base_directory(), encoder, verifier, training, choosing, judging, references)


def _halves(prompts: list[TaskPrompt]) -> tuple[list[TaskPrompt], list[TaskPrompt]]:
    """Two halves with as many prompts of each task, as far as that goes."""
    halves: tuple[list[TaskPrompt], list[TaskPrompt]] = ([], [])
    for task in dict.fromkeys(prompt.task for prompt in prompts):
        for prompt in (own for own in prompts if own.task == task):
            # The half that has fewer of all, so that tasks with one prompt do not all land in the same.
            halves[len(halves[1]) < len(halves[0])].append(prompt)
    return halves
