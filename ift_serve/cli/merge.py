"""`ift-serve adapters merge`: an adapter and its base as one model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ift_serve.cli.base_model import base_of
from ift_serve.cli.connect import Json, fail


def merge(
    adapter: Annotated[Path, typer.Argument(help="an adapter directory")],
    base: Annotated[str, typer.Option(help="the base model: a directory, a hub id in the local cache, or ift-tiny")],
    output: Annotated[Path, typer.Option(help="directory of the merged model", file_okay=False)],
    file_format: Annotated[
        Literal["safetensors", "gguf"],
        typer.Option("--format", help="a directory of safetensors, or one file model.gguf in it"),
    ] = "safetensors",
    drop_components: Annotated[
        bool, typer.Option("--drop-components", help="leave out the components, which cannot be merged")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a model that is there")] = False,
    as_json: Json = False,
) -> None:
    """Add an adapter into its base model's weights, and write it for transformers and `ift-serve serve`, or as GGUF."""
    from rich.console import Console

    from ift_serve.modeling.adapter_format.errors import AdapterError
    from ift_serve.modeling.adapter_format.export import export_merged
    from ift_serve.modeling.checkpoint.files import ModelFilesError, check_model_files
    from ift_serve.modeling.checkpoint.location import NoModelError

    try:
        place = base_of(base)
        check_model_files(str(place))
    except NoModelError as error:
        raise fail(f"--base {error}") from None
    except ModelFilesError as error:
        raise fail(f"--base {base}: {error}") from None
    console = Console(stderr=True)
    try:
        with console.status("merging") as status:
            found = export_merged(
                adapter,
                place,
                output,
                file_format=file_format,
                drop_components=drop_components,
                overwrite=overwrite,
                report=status.update,
            )
    except (AdapterError, OSError, ValueError) as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(f"{found.output}: {found.bytes / 2**20:,.1f} MiB of weights, {found.modules} modules merged")
    for note in found.notes:
        typer.echo(f"note: {note}")
    if found.components:
        typer.echo(f"left out: {', '.join(found.components)}; the model answers without what they learned")
