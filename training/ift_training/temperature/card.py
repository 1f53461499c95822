"""The model card of an adapter that chooses temperatures."""

from __future__ import annotations

import math

from ift_training.temperature.report import TemperatureReport
from ift_training.temperature.settings import TemperatureRecipe

_HEAD = """---
base_model: {base}
pipeline_tag: text-generation
tags: [ift-serve, temperature]
---

# {name}

A head that chooses the sampling temperature of `{base}` {grain}, trained by `ift-serve train temperature`. It changes
no weight and no key or value: requests with it share the base model's prefix cache. T_0 is {initial:g}; the head
chooses from {lowest:.2g} to {highest:.2g}. A request with temperature 0 stays greedy.
"""
_GRAINS = {"token": "for each token", "sequence": "once for a request, from its instruction"}


def temperature_card(recipe: TemperatureRecipe, report: TemperatureReport) -> str:
    """Markdown: temperatures and rewards by task, estimates, calibration, how it was trained, how to use it."""
    initial = recipe.head.temperature
    head = _HEAD.format(
        base=recipe.base,
        name=recipe.name,
        grain=_GRAINS[recipe.head.grain],
        initial=initial,
        lowest=initial / 3,
        highest=initial * 3,
    )
    parts = [head, _outcomes(recipe, report), _estimates(report), _modes(recipe, report), _calibration(report)]
    parts.append(_training(recipe, report))
    return "\n".join(part for part in [*parts, _use(recipe)] if part)


def _outcomes(recipe: TemperatureRecipe, report: TemperatureReport) -> str:
    rows = []
    for task, found in report.outcomes.items():
        error = "" if math.isnan(found.error) else f" ± {found.error:.3f}"
        rows.append(
            f"| {task} | {found.prompts} | {found.temperature:.2f} | {found.before:.3f} | {found.after:.3f} | "
            f"{found.after - found.before:+.3f}{error} |"
        )
    return (
        "## Rewards\n\n"
        f"{recipe.rollouts.samples} answers to each of the held-out prompts that nothing was chosen by, at the same "
        "seeds with T_0 and with the head. Differences are paired by prompt, with their standard error.\n\n"
        "| task | prompts | mean T | reward at T_0 | with the head | difference |\n"
        "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _estimates(report: TemperatureReport) -> str:
    rows = [f"| {name} | {value:.3f} |" for name, value in report.estimates.items()]
    return (
        "## Against constants\n\nRewards on the same prompts, estimated from answers that were drawn at the recipe's "
        "fixed temperatures. The best constant was chosen on other prompts.\n\n| temperature | estimated reward |\n"
        "| --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _modes(recipe: TemperatureRecipe, report: TemperatureReport) -> str:
    if recipe.modes is None:
        return ""
    names = list(report.modes["all"].rewards)
    rows = [
        f"| {task} | {' | '.join(f'{found.rewards[n]:.3f} ({found.tokens[n]:.0f})' for n in names)} | "
        f"{found.reward:.3f} ({found.spent:.0f}) | {', '.join(f'{s:.0%} {n}' for n, s in found.chosen.items() if s)} |"
        for task, found in report.modes.items()
    ]
    return (
        "## Modes of reasoning\n\nWhat `reasoning.auto` chooses, by the instruction. Rewards on held-out prompts that "
        "nothing was chosen by, with the tokens that an answer takes in brackets, hidden ones included; greedy. A "
        f"token costs {recipe.modes.token_cost:g}.\n\n| task | {' | '.join(names)} | as chosen | choices |\n"
        "| --- |" + " --- |" * (len(names) + 2) + "\n" + "\n".join(rows) + "\n"
    )


def _calibration(report: TemperatureReport) -> str:
    found = report.calibration
    if found is None:
        return ""
    use = (
        "Confidences are read off logits divided by it (`calibration_temperature`)"
        if found.is_kept
        else "It makes confidences no better on other tokens and was left out: they are read off the logits as they are"
    )
    return (
        f"## Calibration\n\n**{found.fitted:.4g}** was fitted by likelihood on held-out reference answers. {use}; it "
        f"has no part in sampling. On {found.tokens} other tokens the expected calibration error goes from "
        f"{100 * found.before.error:.2f} % to {100 * found.after.error:.2f} %, the negative log-likelihood from "
        f"{found.before.likelihood:.4f} to {found.after.likelihood:.4f}; see `training/reliability.png`.\n"
    )


def _training(recipe: TemperatureRecipe, report: TemperatureReport) -> str:
    drawn, temperatures = recipe.rollouts, ", ".join(f"{t:g}" for t in recipe.rollouts.temperatures)
    return (
        f"## Training\n\nPolicy gradient ({recipe.objective.ratio} weights, pull {recipe.objective.pull:g}) over "
        f"{report.answers} answers, {report.tokens} tokens: {drawn.samples} to each of {sum(report.prompts.values())} "
        f"prompts and of those held out, at each of the temperatures {temperatures}. Judged by "
        f"`{recipe.reward.verifier}`. Step {report.step} of {recipe.learning.steps} was best on held-out prompts; "
        f"{report.seconds:.0f} seconds, seed {recipe.seed}. The recipe is in `ift_config.json`, the curves are in "
        "`training/curves.png`.\n"
    )


def _use(recipe: TemperatureRecipe) -> str:
    base = "" if recipe.base == "ift-tiny" else recipe.base + " "
    return f"## Use\n\n```\nift-serve serve {base}--adapter {recipe.name}=DIRECTORY\n```\n"
