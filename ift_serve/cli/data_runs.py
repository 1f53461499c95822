"""What the commands that make data have in common: a store, a server, a bar, and errors that a person can read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.connect import ClientOptions, fail

if TYPE_CHECKING:
    from ift_training.data.generation.calls import Servers
    from ift_training.data.generation.run import Progress, Shown
    from ift_training.data.generation.settings import RunRecipe
    from ift_training.data.generation.store import RecordStore

RecipeFile = Annotated[
    Path, typer.Argument(help="recipe.yaml, or the name of one of the package's, such as abstracts-variations")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="field=value, over the recipe; may be repeated")]
_LOG_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""


@contextlib.contextmanager
def readable_data_errors() -> Iterator[None]:
    """Show what the recipe, the data or the server were unhappy about, without a traceback."""
    from ift_serve.checks.errors import MissingExtraError
    from ift_serve.client import ServerError
    from ift_training.data.generation.errors import GenerationError
    from ift_training.data.sources import SourceError
    from ift_training.recipe_file import RecipeError

    try:
        yield
    except (GenerationError, RecipeError, SourceError, MissingExtraError) as error:
        raise fail(str(error)) from None
    except ServerError as error:
        hint = " (is the server running? start one: ift-serve serve)" if error.code == "UNAVAILABLE" else ""
        raise fail(f"{error}{hint}") from None
    except KeyboardInterrupt:
        raise fail("interrupted; the same command again goes on from here") from None


def run_recipe(
    recipe: RunRecipe,
    options: ClientOptions,
    start: Callable[[RecordStore, Servers, Shown], Awaitable[None]],
    *,
    as_json: bool,
) -> None:
    """Run on the recipe's store against the server of the options; export, and show the report."""
    from ift_serve.client import AsyncClient
    from ift_training.data.generation.calls import Servers
    from ift_training.data.generation.export import export
    from ift_training.data.generation.report import GenerationReport
    from ift_training.data.generation.store import RecordStore

    def connect(address: str) -> AsyncClient:
        # The run tries again itself, and tells of it.
        return AsyncClient(address or options.server, retries=0, **options.arguments())

    async def run(store: RecordStore, shown: Shown) -> None:
        async with Servers(connect, store, recipe.seed, recipe.timeout) as servers:
            await start(store, servers, shown)

    recipe.store.parent.mkdir(parents=True, exist_ok=True)
    with RecordStore(recipe.store) as store:
        begun = time.monotonic()
        earlier = float(store.note("seconds") or 0.0)
        try:
            with _bar(quiet=as_json) as shown:
                asyncio.run(run(store, shown))
        finally:
            store.set_note("seconds", earlier + time.monotonic() - begun)
        written = export(store, recipe.output) if recipe.output is not None else None
        report = GenerationReport.of(store)
    if as_json:
        print(json.dumps(report.to_json() | {"output": None if written is None else str(recipe.output)}))
        return
    from rich.console import Console

    Console().print(report.table())
    if written is not None:
        typer.echo(f"{written:,} records written to {recipe.output}")


@contextlib.contextmanager
def _bar(*, quiet: bool) -> Iterator[Shown]:
    """A bar that shows how far a run is; a line now and then where there is no terminal."""
    from rich.console import Console

    from ift_training.progress import bar

    console = Console(stderr=True)
    if quiet:
        yield lambda progress: None
        return
    with bar(console) as shown:
        task = shown.add_task("", total=None, note="")
        said = time.monotonic()

        def show(progress: Progress) -> None:
            nonlocal said
            values: dict[str, Any] = {"description": progress.stage, "completed": progress.done, "note": progress.note}
            shown.update(task, total=progress.total, **values)
            if not console.is_terminal and time.monotonic() - said > _LOG_SECONDS:
                said = time.monotonic()
                of = "" if progress.total is None else f" of {progress.total:,}"
                typer.echo(f"{progress.stage}: {progress.done:,}{of}; {progress.note}", err=True)

        yield show
