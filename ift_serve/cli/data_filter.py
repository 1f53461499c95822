"""`ift-serve data filter`: which records are worth training on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ift_serve.cli.connect import ClientOptions, Json, connected
from ift_serve.cli.data_runs import Overrides, readable_data_errors

if TYPE_CHECKING:
    from ift_training.data.generation.store import RecordStore
    from ift_training.data.quality.asked_model import AskedModel
    from ift_training.data.quality.recipe import QualityRecipe
    from ift_training.data.quality.scoring import Progress

_LOG_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""


@connected
def filter_records(
    options: ClientOptions,
    records: Annotated[
        Path | None, typer.Argument(help="store of records, or a data file that is put into one (see --store)")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="quality recipe; none: the defaults", exists=True, dir_okay=False)
    ] = None,
    set_: Overrides = None,
    store: Annotated[
        Path | None, typer.Option(help="store for the records of a data file; none: beside it", dir_okay=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="write the records that are kept as JSON Lines", dir_okay=False)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="directory for tables and plots of what was found", file_okay=False)
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="directory: how well each filter finds planted faults, by its thresholds", file_okay=False),
    ] = None,
    processes: Annotated[int, typer.Option(help="processes that apply the filters of text", min=1)] = 2,
    engine: Annotated[
        Literal["local", "ray"] | None,
        typer.Option(help="where filters run, over the recipe: here, or on the Ray cluster that RAY_ADDRESS names"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep, flag or reject every record, with its reasons.

    What was found stays in the store: the same command again goes on after whatever ended it, and other thresholds
    need no new scores. Flagged records wait for `ift-serve data review`.
    """
    with readable_data_errors():
        from ift_training.data.quality.recipe import QualityRecipe

        overrides = [*(set_ or []), *([] if engine is None else [f"engine={engine}"])]
        chosen = QualityRecipe.parse({}) if recipe is None and not overrides else _recipe(recipe, overrides)
        if records is None and calibrate is None:
            raise typer.BadParameter("give a store or a file of records, or --calibrate DIR")
        if calibrate is not None:
            _calibrate(options, chosen, calibrate, as_json=as_json)
        if records is not None:
            _filter(options, chosen, records, store, output, report, processes, as_json=as_json)


def _recipe(path: Path | None, overrides: list[str]) -> QualityRecipe:
    from ift_training.data.quality.recipe import QualityRecipe
    from ift_training.recipe_file import apply_override

    if path is not None:
        return QualityRecipe.load(path, overrides)
    found: dict[str, object] = {}
    for override in overrides:
        apply_override(found, override)
    return QualityRecipe.parse(found)


def _filter(
    options: ClientOptions,
    recipe: QualityRecipe,
    records: Path,
    store: Path | None,
    output: Path | None,
    report: Path | None,
    processes: int,
    *,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from ift_training.data.generation.export import export
    from ift_training.data.quality.report import summary_table, write_report
    from ift_training.data.quality.run import filter_records

    with _opened(records, store) as opened, _asked(options, recipe, opened) as asked, _bar(quiet=as_json) as shown:
        found = filter_records(opened, recipe, asked=asked, processes=processes, progress=shown)
        written = export(opened, output) if output is not None else None
        if report is not None:
            write_report(opened, found, report)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    from rich.console import Console

    Console().print(summary_table(found))
    if written is not None:
        typer.echo(f"{written:,} records written to {output}")
    if report is not None:
        typer.echo(f"tables and plots are in {report}")


@contextlib.contextmanager
def _opened(records: Path, store: Path | None) -> Iterator[RecordStore]:
    """The store that the records are in, or are put into."""
    from ift_training.data.quality.errors import QualityError
    from ift_training.data.quality.records import import_records
    from ift_training.data.quality.run import is_store, open_store

    if not records.exists():
        raise QualityError(f"{records}: there is no such file")
    if is_store(records):
        if store is not None:
            raise QualityError(f"--store: {records} is a store itself")
        with open_store(records) as opened:
            yield opened
        return
    from ift_training.data.generation.store import RecordStore

    with RecordStore(store or records.with_suffix(".quality.sqlite")) as opened:
        import_records(records, opened)
        yield opened


@contextlib.contextmanager
def _asked(options: ClientOptions, recipe: QualityRecipe, store: RecordStore) -> Iterator[AskedModel | None]:
    """The model that is asked, if the recipe wants one."""
    if not recipe.asked_model.use:
        yield None
        return
    from ift_training.data.quality.asked_model import AskedModel

    settings = recipe.asked_model
    asked = AskedModel(
        options.server, store.calls, adapter=settings.adapter, concurrency=settings.concurrency,
        timeout=settings.timeout, connection=options.arguments(),
    )  # fmt: skip
    with contextlib.closing(asked):
        yield asked


def _calibrate(options: ClientOptions, recipe: QualityRecipe, folder: Path, *, as_json: bool) -> None:
    from ift_training.data.generation.store import RecordStore
    from ift_training.data.quality.calibration.report import calibration, calibration_table, write_calibration

    folder.mkdir(parents=True, exist_ok=True)
    calls = folder / "calls.sqlite" if recipe.asked_model.use else None
    with RecordStore(calls) as store, _asked(options, recipe, store) as asked:
        found = calibration(recipe, asked)
    write_calibration(found, folder)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    from rich.console import Console

    Console().print(calibration_table(found))
    typer.echo(f"table, curves and JSON are in {folder}")


@contextlib.contextmanager
def _bar(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar a stage; a line now and then where there is no terminal."""
    if quiet:
        yield None
        return
    from rich.console import Console

    from ift_training.progress import bar

    console = Console(stderr=True)
    with bar(console) as shown:
        tasks: dict[str, int] = {}
        said = time.monotonic()

        def show(stage: str, done: int, total: int) -> None:
            nonlocal said
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total, note="")
            shown.update(tasks[stage], completed=done)  # type: ignore[arg-type]
            if not console.is_terminal and time.monotonic() - said > _LOG_SECONDS:
                said = time.monotonic()
                typer.echo(f"{stage}: {done:,} of {total:,}", err=True)

        yield show
