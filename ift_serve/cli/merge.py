"""`ift-serve adapters merge`: an adapter and its base as one model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ift_serve.cli.connect import Json, fail


def merge(
    adapter: Annotated[Path, typer.Argument(help="an adapter directory")],
    base: Annotated[str, typer.Option(help="the base model's directory, or ift-tiny")],
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

    from ift_serve.embedded import EMBEDDED_NAME, model_path
    from ift_serve.modeling.adapter_format.export import export_merged
    from ift_serve.modeling.adapter_format.weights import AdapterError

    place = Path(model_path()) if base == EMBEDDED_NAME else Path(base)
    if not (place / "config.json").is_file():
        raise fail(f"--base {base}: no model there; name its directory, or ift-tiny")
    console = Console(stderr=True)
    try:
        with console.status("merging") as status:
            found = export_merged(
                adapter, place, output, file_format=file_format, drop_components=drop_components,
                overwrite=overwrite, report=status.update,
            )  # fmt: skip
    except (AdapterError, OSError, ValueError) as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(f"{found.output}: {found.bytes / 2**20:,.1f} MiB of weights, {found.modules} modules merged")
    if found.components:
        typer.echo(f"left out: {', '.join(found.components)}; the model answers without what they learned")
