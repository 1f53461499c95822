"""`ift-serve data preview`: training examples as the trainer sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ift_serve.cli.connect import Json, fail, under_way

if TYPE_CHECKING:
    from ift_training.data.encode import Encoder
    from ift_training.data.selection import TrainingData
    from ift_training.recipe import Recipe


def preview(
    path: Annotated[
        Path, typer.Argument(help="recipe.yaml, a file or directory of records, or a recipe of the package")
    ],
    count: Annotated[int, typer.Option("--count", "-n", help="examples to show", min=1)] = 5,
    validation: Annotated[bool, typer.Option("--validation", help="show what is set apart for validation")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="field=value, over the recipe; repeat")] = None,
    html: Annotated[Path | None, typer.Option(help="write a page instead", dir_okay=False)] = None,
    dropped: Annotated[
        Path | None, typer.Option(help="file for every record that is not used: place, field, reason", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show examples token by token: colours are segments, underlined is what the loss sees; and what is dropped."""
    from ift_serve.cli.training import readable_training_errors

    if not as_json:
        under_way(f"reading {path}")
    with readable_training_errors():
        encoder, found, refused = _open(path, set_ or [], dropped, shown=not as_json)
    dataset = found.validation if validation else found.train
    if not len(dataset):
        raise fail("nothing is set apart for validation; give the recipe a `validation`")
    examples = [dataset[index] for index in range(min(count, len(dataset)))]
    tokenizer = encoder.renderer.tokenizer
    if html is not None:
        from ift_training.data.preview import to_html

        try:
            html.write_text(to_html(examples, tokenizer), encoding="utf-8")
        except OSError as error:
            raise fail(f"--html {html}: {error.strerror}") from None
        typer.echo(f"{len(examples)} examples written to {html}")
        return
    from ift_training.data.preview import legend, to_json, to_plain, to_text

    if as_json:
        shown = {
            "data": found.report.to_json(),
            "refused": refused,
            "examples": [to_json(e, tokenizer) for e in examples],
        }
        print(json.dumps(shown, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    console = Console()
    for example in examples:
        title = f"{example.task_name}, {len(example.input_ids)} tokens, {sum(example.labels_mask)} seen"
        console.print(Rule(Text(title), align="left"))
        if console.color_system is None:
            console.print(to_plain(example, tokenizer), markup=False, soft_wrap=True)
        else:
            console.print(to_text(example, tokenizer))
    console.print(Rule(), legend() if console.color_system else "* is seen by the loss", found.report.table())
    if refused is not None:
        console.print(Text(f"`ift-serve train` will not take it: {refused}", style="bold red"))


def _open(
    path: Path, overrides: list[str], dropped: Path | None, *, shown: bool
) -> tuple[Encoder, TrainingData, str | None]:
    """The data, and why a training would refuse it; what is left of it can be looked at all the same."""
    from rich.console import Console

    from ift_training.data.lost import too_much
    from ift_training.prepare import open_encoder, prepare_recipe
    from ift_training.progress import reading, stage

    recipe = _recipe(path, overrides)
    stage(f"opening the tokenizer of {recipe.base}", shown=shown)
    encoder = open_encoder(recipe)
    with reading(Console(stderr=True), shown=shown) as counted:
        found = prepare_recipe(recipe, encoder, counted, dropped)
    much = too_much(found.report, recipe.max_lost)
    return encoder, found, None if much is None else much[1]


def _recipe(path: Path, overrides: list[str]) -> Recipe:
    """The recipe, or one around a file of records."""
    from ift_serve.cli.training import packaged
    from ift_training.recipe import Recipe, apply_override

    if path.suffix in (".yaml", ".yml") or not path.exists():
        return Recipe.load(packaged(path), overrides)
    found = {"output": "preview", "sources": [{"file": str(path.absolute())}], "validation": {"share": 0}}
    for override in overrides:
        apply_override(found, override)
    return Recipe.parse(found)
