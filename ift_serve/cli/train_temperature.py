"""`ift-serve train temperature`: train the head that chooses sampling temperatures, from verifiable rewards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ift_serve.cli.connect import Json, under_way
from ift_serve.cli.training import packaged, quieten_libraries, readable_training_errors, require_training


def temperature(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml, or the name of one of the package's")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="field=value, such as rollouts.samples=16; may be repeated")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check recipe and data; draw and train nothing")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="keep the answers that an earlier run drew")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="begin anew, and delete the answers of a run that did not end")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a head that chooses the sampling temperature, for each token or for a request.

    Answers are drawn from the engine at several temperatures and judged; the base model is not changed. The result is
    an adapter directory that a running server loads.
    """
    if resume and overwrite:
        raise typer.BadParameter("goes on from what --overwrite deletes; give one of them", param_hint="--resume")
    if not as_json:
        under_way(f"reading {recipe}")
    require_training()
    with readable_training_errors():
        from ift_training.temperature.settings import TemperatureRecipe

        chosen = TemperatureRecipe.load(packaged(recipe), set_ or [])
        from ift_training.temperature.run import train_temperature

        quieten_libraries()
        report = train_temperature(chosen, dry_run=dry_run, resume=resume, overwrite=overwrite, progress=not as_json)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        report.show()
