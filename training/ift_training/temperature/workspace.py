"""The files of a temperature training, and whether one may begin, or go on, where the recipe says."""

from __future__ import annotations

import shutil
from pathlib import Path

from ift_serve.modeling.adapter_format.config import IFT_CONFIG
from ift_training.base_recipe import RecipeError
from ift_training.prepare import REPORT, RUN_FOLDER


class Workspace:
    """What lies beside the adapter: ``training/`` with answers, features, pictures, the report."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / RUN_FOLDER
        self.rollouts = self.folder / "rollouts.jsonl"
        self.features = self.folder / "features"
        self.candidate = self.folder / "candidate"
        self.curves = self.folder / "curves.png"
        self.reliability = self.folder / "reliability.png"
        self.report = self.folder / REPORT

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Raise RecipeError where files of others, or of a run that did not end, would be lost."""
        output = self.output
        if (
            output.exists()
            and any(output.iterdir())
            and not (output / IFT_CONFIG).exists()
            and not self.folder.is_dir()
        ):
            raise RecipeError(f"output: {output} holds other files; name a new directory")
        unfinished = self.rollouts.exists() and not self.report.exists()
        if unfinished and not resume and not overwrite:
            raise RecipeError(
                f"output: {output} holds answers of a run that did not come to its end; go on from it with --resume, "
                "or begin anew with --overwrite"
            )
        if resume and not self.rollouts.exists():
            raise RecipeError(f"--resume: {self.rollouts} is not there; run without --resume")

    def begin(self, *, resume: bool) -> None:
        """Make the directories; without ``resume`` nothing of an earlier run stays. Raises RecipeError."""
        try:
            if not resume:
                shutil.rmtree(self.features, ignore_errors=True)
                self.rollouts.unlink(missing_ok=True)
            self.report.unlink(missing_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(f"output: {self.output} cannot be written to: {error.strerror}") from error
