"""Exit status of a run: whether it is whole, and its scores are good enough."""

from __future__ import annotations

from collections import Counter
from typing import Any

ALL = "all"
_REFUSED = "INVALID_ARGUMENT"
"""It says what a prompt is: asked again it would be refused again."""


def main_score(found: dict[str, Any], model: str, task: str) -> float | None:
    """The share of prompts kept whole by the column that counts; None where nothing was judged."""
    fitting = (
        score["value"]
        for score in found["scores"]
        if score["model"] == model and score["task"] == task and score["level"] == "prompt"
    )
    return next(fitting, None)


def problems(found: dict[str, Any], fail_under: float | None, before: dict[str, Any] | None, slack: float) -> list[str]:
    """What speaks against a run, empty where nothing does.

    ``fail_under``: share from 0 to 1 that every model must reach in every task. ``before``: a report whose scores must
    be reached, less ``slack``. A score that stands on nothing, a model or task that has gone, or answers that were
    lost, are problems too; prompts that the server refuses are none.
    """
    said = []
    lost = _lost(found)
    for covered in found["coverage"]:
        place = f"{covered['model']}, {covered['task']}"
        if covered["answered"] == 0:
            said.append(f"{place}: nothing was answered")
        elif codes := lost.get((covered["model"], covered["task"])):
            missing = f"{codes.total()} of {covered['asked']} answers are missing"
            said.append(f"{place}: {missing} ({', '.join(codes)})")
    tasks = list(dict.fromkeys(score["task"] for score in found["scores"]))
    for model in found["models"]:
        for task in tasks:
            score = main_score(found, model, task)
            if fail_under is not None and score is not None and score < fail_under:
                said.append(f"{model}, {task}: {score:.1%} is under {fail_under:.1%}")
    for old in (before or {}).get("scores", ()):
        if old["level"] != "prompt" or old["family"] != ALL:
            continue
        name = f"{old['model']}, {old['task']}, {old['column']}"
        new = [
            score["value"]
            for score in found["scores"]
            if _name(score) == _name(old) and score["column"] == old["column"] and score["level"] == "prompt"
        ]
        if not new:
            said.append(f"{name}: was {old['value']:.1%} and is missing")
        elif new[0] < old["value"] - slack - 1e-12:
            said.append(f"{name}: {new[0]:.1%} after {old['value']:.1%}")
    return said


def _lost(found: dict[str, Any]) -> dict[tuple[str, str], Counter[str]]:
    """By model and task, how many calls came to nothing for each code."""
    lost: dict[tuple[str, str], Counter[str]] = {}
    for row in found["rows"]:
        code = row["error"].partition(":")[0]
        if code and code != _REFUSED:
            lost.setdefault((row["model"], row["task"]), Counter())[code] += 1
    return lost


def _name(score: dict[str, Any]) -> tuple[str, str]:
    """Model and task; versions of an adapter are one model, for a new one is compared with the old."""
    return score["model"].partition("@")[0], score["task"]
