"""One temperature training, from a recipe to an adapter directory with its card, curves and report."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import torch
from rich.console import Console

from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.frontend.engine_client import BaseEngineClient, EngineStartError
from ift_serve.frontend.errors import EngineError
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError
from ift_training.base_recipe import RecipeError
from ift_training.progress import counting, stage
from ift_training.temperature.adapter import write_heads
from ift_training.temperature.calibration import Calibration, calibrate
from ift_training.temperature.card import temperature_card
from ift_training.temperature.evaluation import Drawing, Outcome, evaluate
from ift_training.temperature.features import FeatureCache, compute_features
from ift_training.temperature.frozen_model import FrozenModel
from ift_training.temperature.loop import Learned, PromptSet, learn
from ift_training.temperature.materials import Materials, gather
from ift_training.temperature.modes import ModeOutcome, ModeRunner, Tried, compare_modes, learn_modes
from ift_training.temperature.objective import PolicyGradient
from ift_training.temperature.plots import plot_curves, plot_reliability
from ift_training.temperature.policy import ConstantPolicy, HeadPolicy
from ift_training.temperature.prompts import TaskPrompt
from ift_training.temperature.report import TemperatureReport, compare
from ift_training.temperature.rollout_file import Answers, RolloutFile
from ift_training.temperature.rollouts import Drawer, roll_out
from ift_training.temperature.settings import ModeSettings, TemperatureRecipe
from ift_training.temperature.trajectories import PromptFeatures, Trajectories
from ift_training.temperature.workspace import Workspace

_START_SECONDS = 600.0

Result = TypeVar("Result")


def train_temperature(
    recipe: TemperatureRecipe,
    *,
    dry_run: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> TemperatureReport:
    """Train the recipe's head and write its adapter; with ``dry_run`` read the data and say what would be drawn.

    Answers are kept as they come and features as they are computed: with ``resume`` whatever a run that ended early has
    is not done again. Raises RecipeError, SourceError, TemplateError, OSError.
    """
    begun = time.monotonic()
    console = Console(quiet=not progress)
    workspace = Workspace(recipe.output)
    workspace.check(resume=resume, overwrite=overwrite)
    materials = gather(recipe, console, shown=progress)
    report = _first_report(materials)
    if dry_run:
        return report
    workspace.begin(resume=resume)
    run = _Run(materials, workspace, console, shown=progress)
    answers = run.draw()
    report.tokens = sum(len(ids) for own in answers for group in own for ids in group)
    model = run.open_model()
    sets = run.features(model, answers)
    policy, learned = run.learn(model, sets)
    report.history, report.step = learned.history, learned.step
    report.estimates = run.estimates(policy, sets)
    if recipe.modes is not None:
        report.modes, report.mode_step = run.learn_modes(recipe.modes, policy, sets)
    report.calibration = run.calibrate(model)
    report.outcomes = compare(*run.evaluate(model, policy))
    report.seconds, report.output = time.monotonic() - begun, recipe.output
    _write(materials, workspace, model, policy, report)
    return report


def _first_report(materials: Materials) -> TemperatureReport:
    recipe, drawn = materials.recipe, materials.recipe.rollouts
    return TemperatureReport(
        name=recipe.name,
        base=recipe.base,
        grain=recipe.head.grain,
        prompts=dict(Counter(prompt.task for prompt in materials.training)),
        held_out=len(materials.choosing) + len(materials.judging),
        answers=len(materials.prompts) * len(drawn.temperatures) * drawn.samples,
        longest=drawn.max_new_tokens,
    )


def _write(
    materials: Materials, workspace: Workspace, model: FrozenModel, policy: HeadPolicy, report: TemperatureReport
) -> None:
    recipe = materials.recipe
    write_heads(
        recipe.output,
        policy.components,
        model.metadata,
        temperature_card(recipe, report),
        recipe=recipe.model_dump(mode="json"),
        scores=report.scores(),
        template_fingerprint=materials.encoder.renderer.template_fingerprint,
        end_ids=materials.ends,
        calibration_temperature=None if report.calibration is None else report.calibration.temperature,
    )
    plot_curves(report.history, workspace.curves, recipe.name, report.step)
    if report.calibration is not None:
        plot_reliability(report.calibration, workspace.reliability, recipe.name)
    workspace.report.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")


class _Run:
    """The stages of a run."""

    def __init__(self, materials: Materials, workspace: Workspace, console: Console, *, shown: bool) -> None:
        self._materials = materials
        self._recipe = materials.recipe
        self._workspace = workspace
        self._console = console
        self._shown = shown
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def draw(self) -> list[list[Answers]]:
        """The answers to every prompt, by temperature."""
        drawn, prompts = self._recipe.rollouts, self._materials.prompts
        file = RolloutFile(self._workspace.rollouts, self._materials.key)
        try:
            if left := len(list(file.missing(len(prompts), len(drawn.temperatures)))):
                stage(f"drawing {left * drawn.samples} answers", shown=self._shown)

                async def work(engine: BaseEngineClient) -> None:
                    with counting(self._console, "drawing answers", left) as done:
                        await roll_out(
                            Drawer(engine, self._materials.ends, drawn.in_flight),
                            prompts,
                            file,
                            drawn.temperatures,
                            samples=drawn.samples,
                            max_new_tokens=drawn.max_new_tokens,
                            seed=self._recipe.seed,
                            done=done,
                        )

                self._with_engine(work)
            return [[file.known[p, t] for t in range(len(drawn.temperatures))] for p in range(len(prompts))]
        finally:
            file.close()

    def _with_engine(self, work: Callable[[BaseEngineClient], Awaitable[Result]]) -> Result:
        async def opened() -> Result:
            engine = local_engine(EngineConfig(model=self._materials.directory))
            await engine.start(_START_SECONDS)
            try:
                return await work(engine)
            finally:
                await engine.close()

        try:
            return asyncio.run(opened())
        except (EngineStartError, EngineError) as error:
            raise RecipeError(f"base: {self._recipe.base}: {error}") from error

    def open_model(self) -> FrozenModel:
        """The base, for features."""
        stage("loading the base model", shown=self._shown)
        try:
            return FrozenModel(self._materials.directory, self._device)
        except UnsupportedModelError as error:
            raise RecipeError(f"base: {error}") from error

    def features(self, model: FrozenModel, answers: list[list[Answers]]) -> list[PromptSet]:
        """Of the prompts to learn from, to choose by, and for the card."""
        materials, head = self._materials, self._recipe.head
        components = self._components(model)
        key = f"{materials.key}|{head.temperature}|{head.instruction_encoder}|{self._recipe.seed}|{model.dtype}"
        cache = FeatureCache(self._workspace.features, key)
        sets, number = list[PromptSet](), 0
        stage(f"computing features of {len(materials.prompts)} prompts' answers", shown=self._shown)
        with counting(self._console, "features", len(materials.prompts)) as done:
            for prompts in (materials.training, materials.choosing, materials.judging):
                found = PromptSet([], [], [prompt.task for prompt in prompts])
                for prompt in prompts:
                    own = answers[number]
                    found.features.append(
                        cache.of(number, _computing(model, components, prompt, own, head.temperature))
                    )
                    found.rewards.append(materials.rewards(prompt, own))
                    number += 1
                    done("")
                sets.append(found)
        return sets

    def _components(self, model: FrozenModel) -> InstructionComponents:
        """Fresh ones, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._recipe.seed)
            return InstructionComponents(self._recipe.components, model.metadata.shape)

    @property
    def _objective(self) -> PolicyGradient:
        recipe = self._recipe
        return PolicyGradient(recipe.objective, recipe.rollouts.temperatures, recipe.head.temperature)

    def learn(self, model: FrozenModel, sets: list[PromptSet]) -> tuple[HeadPolicy, Learned]:
        """The trained head, at its best step."""
        policy, settings = HeadPolicy(self._components(model)), self._recipe.learning
        stage(f"training for {settings.steps} steps", shown=self._shown)
        with counting(self._console, "training", settings.steps) as done:

            def told(step: int, note: str) -> None:
                done(note, advance=0 if note else 1)

            learned = learn(
                policy,
                sets[0],
                sets[1],
                self._objective,
                settings,
                self._recipe.seed,
                told,
            )
        return policy, learned

    def learn_modes(
        self, settings: ModeSettings, policy: HeadPolicy, sets: list[PromptSet]
    ) -> tuple[dict[str, ModeOutcome], int]:
        """The trained classifier, in the policy's components: its outcomes on the card's prompts, and its best step."""
        materials, classifier = self._materials, policy.components.mode_classifier
        assert classifier is not None
        groups = (materials.training, materials.choosing, materials.judging)
        stage(f"trying every mode on {len(materials.prompts)} prompts", shown=self._shown)

        async def work(engine: BaseEngineClient) -> list[list[Tried]]:
            rollouts = self._recipe.rollouts
            drawer = Drawer(engine, materials.ends, rollouts.in_flight)
            renderer = materials.encoder.renderer
            runner = ModeRunner(drawer, renderer, materials.verifier, settings, rollouts.max_new_tokens)
            with counting(self._console, "trying modes", len(materials.prompts)) as done:
                return [await runner.try_all(prompts, lambda: done("")) for prompts in groups]

        tried = self._with_engine(work)
        vectors = [torch.cat([features.instruction for features in found.features]) for found in sets]
        classifier.requires_grad_(True)
        step = learn_modes(classifier, (vectors[0], tried[0]), (vectors[1], tried[1]), settings)
        return compare_modes(classifier, vectors[2], tried[2]), step

    @torch.no_grad()
    def estimates(self, policy: HeadPolicy, sets: list[PromptSet]) -> dict[str, float]:
        """Rewards on the card's prompts: of T_0, of the head, of a constant at its mean, of the best constant."""
        choosing, judging, objective = sets[1].whole(), sets[2].whole(), self._objective
        initial = self._recipe.head.temperature

        def reward(constant: float, of: Trajectories) -> float:
            factors = ConstantPolicy(math.log(constant / initial)).log_factors(of)
            return float(objective.estimate(of, factors).reward.mean())

        factors = policy.log_factors(judging)
        mean = initial * float(factors.exp().mean())
        best = max(self._recipe.rollouts.temperatures, key=lambda constant: reward(constant, choosing))
        return {
            f"T_0 = {initial:g}": reward(initial, judging),
            "the head": float(objective.estimate(judging, factors).reward.mean()),
            f"constant at the head's mean, {mean:.2f}": reward(mean, judging),
            f"best constant, {best:g}": reward(best, judging),
        }

    def calibrate(self, model: FrozenModel) -> Calibration | None:
        """The temperature of confidences, None where it is off."""
        settings, materials = self._recipe.calibration, self._materials
        if not settings.tokens:
            return None
        stage("fitting the calibration temperature", shown=self._shown)
        return calibrate(model, materials.encoder, materials.references, settings.tokens, settings.bins)

    def evaluate(self, model: FrozenModel, policy: HeadPolicy) -> tuple[list[Outcome], list[Outcome]]:
        """With T_0 and with the head, served by the engine as anybody would."""
        materials, recipe, name = self._materials, self._recipe, self._recipe.name
        write_heads(self._workspace.candidate, policy.components, model.metadata)
        stage(f"drawing answers to {len(materials.judging)} prompts with and without the head", shown=self._shown)

        async def work(engine: BaseEngineClient) -> tuple[list[Outcome], list[Outcome]]:
            await engine.load_adapter(name, str(self._workspace.candidate))
            drawer = Drawer(engine, materials.ends, recipe.rollouts.in_flight)
            with counting(self._console, "evaluating", 2 * len(materials.judging)) as done:
                outcomes = [
                    await evaluate(
                        drawer,
                        Drawing(recipe.head.temperature, adapter, recipe.head.greedy_below),
                        materials.judging,
                        materials.decode,
                        materials.verifier,
                        recipe.reward.novelty,
                        samples=recipe.rollouts.samples,
                        max_new_tokens=recipe.rollouts.max_new_tokens,
                        seed=recipe.seed,
                        done=lambda: done(""),
                    )
                    for adapter in ("", name)
                ]
            return outcomes[0], outcomes[1]

        try:
            return self._with_engine(work)
        finally:
            shutil.rmtree(self._workspace.candidate, ignore_errors=True)


def _computing(
    model: FrozenModel, components: InstructionComponents, prompt: TaskPrompt, answers: list[Answers], initial: float
) -> Callable[[], PromptFeatures]:
    return lambda: compute_features(model, components, prompt, answers, initial)
