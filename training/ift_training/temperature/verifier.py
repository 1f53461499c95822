"""Verifiers of answers: a record's checks, its reference, or a function of the recipe's owner."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

from ift_serve.checks import judge_all
from ift_serve.checks.answers import Exact
from ift_training.base_recipe import RecipeError
from ift_training.data.records import Record
from ift_training.temperature.settings import RewardSettings

Verifier = Callable[[Record, str], float]
"""The worth of an answer to a record's prompt."""


def make_verifier(settings: RewardSettings) -> Verifier:
    """The verifier that a recipe names. Raises RecipeError."""
    if settings.is_callable:
        assert settings.directory is not None
        return OwnFunction(settings.directory, *settings.verifier.split(":"))
    return _passes_checks if settings.verifier == "checks" else _is_reference


def _passes_checks(record: Record, answer: str) -> float:
    return float(bool(judge_all(record.checks, answer, record.prompt[-1].content)))


def _is_reference(record: Record, answer: str) -> float:
    return float(bool(Exact(answer=record.response).verdict(answer)))


class OwnFunction:
    """``function(instruction, answer, reference) -> float`` of a file in the directory that the recipe names.

    The module is not looked for anywhere else, and does not become importable for anyone else.
    """

    def __init__(self, directory: Path, module: str, function: str) -> None:
        """Raises RecipeError where there is no such file in the directory, or no such function in it."""
        root = directory.resolve()
        path = (root / f"{module}.py").resolve()
        if path.parent != root or not path.is_file():
            raise RecipeError(f"reward.directory: {directory} holds no {module}.py")
        spec = importlib.util.spec_from_file_location(f"_reward_{module}", path)
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        self._function: Callable[[str, str, str], float] = getattr(loaded, function, None)  # type: ignore[assignment]
        self._name = f"{module}:{function}"
        if not callable(self._function):
            raise RecipeError(f"reward.verifier: {path} has no function {function!r}")

    def __call__(self, record: Record, answer: str) -> float:
        """Raises RecipeError for what is no number."""
        found = self._function(record.prompt[-1].content, answer, record.response)
        if not isinstance(found, int | float) or not math.isfinite(found):
            raise RecipeError(f"reward.verifier: {self._name} gave {found!r:.80}, which is no finite number")
        return float(found)


def check_judged(settings: RewardSettings, records: list[Record]) -> None:
    """Whether the verifier can judge every record. Raises RecipeError."""
    if settings.verifier != "checks":
        return
    if without := sum(not record.checks for record in records):
        raise RecipeError(
            f"reward.verifier: {without} of {len(records)} prompts have no checks; give the source `checks`, or judge "
            "by `exact` or a function of your own"
        )
