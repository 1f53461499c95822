"""`ift-serve train`: make an adapter from a recipe; `fisher` and `temperature` are beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ift_serve.cli.connect import Json, fail, under_way
from ift_serve.cli.train_temperature import temperature
from ift_serve.cli.training import packaged, quieten_libraries, readable_training_errors, require_training

_DEFAULT = "run"


class RecipeFirst(TyperGroup):
    """A group whose command may be left out: what is no command's name goes to ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before arguments that begin with no command."""
        if not args or args[0] not in self.commands:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=RecipeFirst, help="Train an adapter from a recipe.", pretty_exceptions_enable=False)
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="field=value, such as trainer.max_steps=100; may be repeated")
]
Dropped = Annotated[
    Path | None,
    typer.Option("--dropped", help="file for every record that is not used: place, field, reason", dir_okay=False),
]


@app.callback()
def train() -> None:
    """Train an adapter from a recipe (`ift-serve train RECIPE`), or the head that chooses temperatures (`temperature`).

    Or measure what a task needs remembered (`fisher`)."""


@app.command()
def run(
    recipe: Annotated[
        Path | None, typer.Argument(help="recipe.yaml, or the name of one of the package's, such as style-small")
    ] = None,
    set_: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check recipe, data and memory; train nothing")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="begin anew, and delete the checkpoints of a run that did not end")
    ] = False,
    init: Annotated[
        bool, typer.Option("--init", help="write a commented recipe to RECIPE (none: recipe.yaml)")
    ] = False,
    dropped: Dropped = None,
    as_json: Json = False,
) -> None:
    """Train the adapter of RECIPE.

    `ift-serve train RECIPE` and `ift-serve train run RECIPE` are the same. See also: `ift-serve train fisher --help`.
    """
    if init:
        _write_template(recipe or Path("recipe.yaml"))
        return
    if recipe is None:
        raise typer.BadParameter("name a recipe; `ift-serve train --init` writes one", param_hint="RECIPE")
    if resume and overwrite:
        raise typer.BadParameter("goes on from what --overwrite deletes; give one of them", param_hint="--resume")
    # Libraries take seconds to import, in which a person should see that something happens.
    if not as_json and os.environ.get("RANK", "0") == "0":
        under_way(f"reading {recipe}")
    require_training()
    with readable_training_errors():
        from ift_training.recipe import Recipe

        chosen = Recipe.load(packaged(recipe), set_ or [])
        from ift_serve.system.imports import large_imports

        with large_imports():
            from ift_training.run import train as run_recipe

            quieten_libraries()
        report = run_recipe(
            chosen,
            dry_run=dry_run,
            resume=resume,
            overwrite=overwrite,
            progress=not as_json,
            dropped=dropped if os.environ.get("RANK", "0") == "0" else None,
        )
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        report.show()


@app.command()
def fisher(
    recipe: Annotated[Path, typer.Argument(help="recipe of the task to be remembered")],
    output: Annotated[Path, typer.Option(help="file to write (.safetensors)", dir_okay=False)] = Path(
        "fisher.safetensors"
    ),
    examples: Annotated[int, typer.Option(help="examples to average over", min=1)] = 200,
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure which weights of a trained adapter its task depends on, for a later training with EWC."""
    if not as_json:
        under_way(f"reading {recipe}")
    require_training()
    with readable_training_errors():
        from ift_training.recipe import Recipe

        chosen = Recipe.load(packaged(recipe), set_ or [])
        from ift_serve.system.imports import large_imports

        with large_imports():
            from ift_training.fisher import write_fisher

            quieten_libraries()
        written = write_fisher(chosen, output, examples=examples, progress=not as_json)
    if as_json:
        print(json.dumps(written))
    else:
        typer.echo(
            f"Fisher information of {written['parameters']} weights over {written['examples']} examples: {output}"
        )


app.command()(temperature)


def _write_template(path: Path) -> None:
    from ift_training.recipe_template import recipe_template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(recipe_template())
    except FileExistsError:
        raise fail(f"{path} is there already; name another file: ift-serve train --init FILE") from None
    except OSError as error:
        raise fail(f"{path}: {error.strerror}") from None
    typer.echo(f"{path} written. Check it: ift-serve train {path} --dry-run. Run it: ift-serve train {path}")
