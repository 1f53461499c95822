"""The model card of an adapter."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ift_training.reporting.summary import TrainingReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ift_training.evaluation.score import Judged
    from ift_training.recipe import Recipe

_SHOWN = 6
_HEAD = """---
library_name: peft
base_model: {base}
pipeline_tag: text-generation
tags: [ift-serve, {kind}]
---

# {name}

An adapter of `{base}`, trained by `ift-serve train`{components}.
"""


def model_card(recipe: Recipe, report: TrainingReport, answers: Sequence[Judged]) -> str:
    """Markdown: scores, data, how it was trained, some answers, how to use it."""
    on = recipe.trainer.components.names
    head = _HEAD.format(
        base=recipe.base,
        name=recipe.name,
        kind="lora" if recipe.trainer.lora.rank else "components",
        components=f", with {', '.join(name.replace('_', ' ') for name in on)}" if on else "",
    )
    parts = [head, _scores(report), _answers(answers), _data(report), _training(recipe, report), _use(recipe)]
    return "\n".join(part for part in parts if part)


def _scores(report: TrainingReport) -> str:
    if not report.after:
        return "## Scores\n\nNothing in the validation data can be judged by a checker; see the losses below.\n"
    rows = [
        f"| {_cell(task)} | {100 * report.before.get(task, 0):.1f} | {100 * share:.1f} |"
        for task, share in report.after.items()
    ]
    gain = 100 * (report.gain or 0.0)
    return (
        "## Scores\n\nShare of greedy answers to validation requests that pass their checkers, in per cent. "
        f"Gain of the mean over tasks: **{gain:+.1f}**.\n\n"
        "| task | base | adapter |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _answers(answers: Sequence[Judged]) -> str:
    """A few answers, of as many tasks as there are, so that a reader sees what the scores stand for."""
    seen: Counter[str] = Counter()
    turns = []
    for judged in answers:
        turns.append(seen[judged.task])
        seen[judged.task] += 1
    chosen = [judged for _, judged in sorted(zip(turns, answers, strict=True), key=lambda pair: pair[0])[:_SHOWN]]
    if not chosen:
        return ""
    rows = [
        f"| {_cell(judged.record.prompt[-1].content)} | {_cell(judged.answer)} | {'yes' if judged.passed else 'no'} |"
        for judged in chosen
    ]
    return "## Some answers\n\n| request | answer | passes |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")
    return escaped if len(escaped) <= 200 else escaped[:197] + "..."


def _data(report: TrainingReport) -> str:
    rows = [
        f"| {_cell(s.name)} | {_cell(s.origin)} | {s.weight:g} | {s.kept} | {s.validation} | {s.lost} |"
        for s in report.data.sources
    ]
    return (
        f"## Data\n\n{report.data.examples} examples an epoch, {report.data.validation} for validation.\n\n"
        "| source | origin | weight | kept | validation | dropped |\n| --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _training(recipe: Recipe, report: TrainingReport) -> str:
    settings = recipe.trainer
    losses = ", ".join(f"{name.removeprefix('loss_')} {value:.4f}" for name, value in report.losses.items())
    best = f" (the best, step {report.best_step}, was kept)" if report.best_step else ""
    warning = f"**{report.no_gain}** " if report.no_gain else ""
    examples = settings.batch_size * settings.accumulation
    return (
        f"## Training\n\n{warning}{report.steps} steps{best} of {examples} examples a process, "
        f"{report.seconds:.0f} seconds, seed {recipe.seed}; {report.trained_parameters:,} trained parameters, "
        f"LoRA rank {settings.lora.rank}, "
        f"learning rate {settings.learning_rate:g}. Losses at the step written: {losses}. "
        "The recipe is in `ift_config.json`; the curves are in `training/curves.png`.\n"
    )


def _use(recipe: Recipe) -> str:
    return (
        f"## Use\n\n```\nift-serve serve {'' if recipe.base == 'ift-tiny' else recipe.base + ' '}"
        f"--adapter {recipe.name}=DIRECTORY\n```\n\nThe low-rank part alone also loads with PEFT: "
        "`PeftModel.from_pretrained(base, DIRECTORY)`.\n"
    )
