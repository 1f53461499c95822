"""`ift-serve data convert`: files of others, or a data set of the hub, into our JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ift_serve.cli.connect import Json, fail, under_way


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="JSON Lines, a JSON list, CSV, Parquet, gzip of these, a directory of such files, or a data set of "
            "the hub as owner/name"
        ),
    ],
    output: Annotated[Path, typer.Argument(help="JSON Lines file to write", dir_okay=False)],
    rename: Annotated[list[str] | None, typer.Option(help="a field's name: THEIRS=OURS; may be repeated")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="a field to pass over; may be repeated")] = None,
    limit: Annotated[int | None, typer.Option(help="read the first records only", min=1)] = None,
    dropped: Annotated[
        Path | None,
        typer.Option(help="file for every record that does not fit; none: OUTPUT.dropped.jsonl", dir_okay=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 2 if a record does not fit")] = False,
    as_json: Json = False,
) -> None:
    """Write records of any usual layout as ours, which the trainer and `data generate` read.

    Alpaca, Dolly, ShareGPT, messages of OpenAI, prompt and completion, question and answer, Self-Instruct's tasks.
    Records that do not fit are named with line, field and reason.
    """
    from rich.console import Console

    from ift_serve.cli.training import readable_training_errors
    from ift_training.progress import reading

    if not as_json:
        under_way(f"reading {source}")
    with readable_training_errors():
        from ift_training.data.convert import convert as convert_source
        from ift_training.data.dropped import dropped_records
        from ift_training.data.settings import SourceSettings

        names = dict(_pair(text) for text in rename or [])
        settings = SourceSettings(file=_file(source), rename=names, ignore=ignore or [], limit=limit)
        listed = dropped or output.with_name(f"{output.name}.dropped.jsonl")
        console = Console(stderr=True)
        try:
            with dropped_records(listed) as refused, reading(console, shown=not as_json) as counted:
                found = convert_source(settings, output, refused, counted or (lambda count: None))
        finally:
            # Nobody asked for a list of nothing.
            if dropped is None and listed.exists() and not listed.stat().st_size:
                listed.unlink()
    if as_json:
        print(json.dumps(found.to_json() | {"dropped": str(listed) if found.refused else None}))
    else:
        for line in [*found.notes, *found.refusals]:
            typer.echo(line, err=True)
        typer.echo(f"{found.written:,} of {found.read:,} records written to {output}")
        if found.refused:
            typer.echo(f"{found.refused:,} do not fit; each is in {listed}")
    if strict and found.refused:
        raise typer.Exit(2)


def _file(source: str) -> Path:
    from ift_training.data.hub import hub_directory, looks_like_name

    path = Path(source)
    return hub_directory(source) if not path.exists() and looks_like_name(source) else path


def _pair(text: str) -> tuple[str, str]:
    theirs, sign, ours = text.partition("=")
    if not theirs or not sign or not ours:
        raise fail(f"--rename {text}: write THEIRS=OURS")
    return theirs, ours
