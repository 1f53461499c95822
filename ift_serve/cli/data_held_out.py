"""`ift-serve data held-out`: prompts of the procedural families that no training draws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ift_serve.cli.connect import fail


def held_out(
    output: Annotated[Path, typer.Argument(help="JSON Lines file to write", dir_okay=False)],
    count: Annotated[int, typer.Option(help="prompts of each family", min=1)] = 20,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write prompts of the procedural families' test split with their checks, as `ift-serve eval` reads them."""
    from ift_training.data.held_out import write_held_out

    try:
        written = write_held_out(output, count, seed)
    except OSError as error:
        raise fail(f"{output}: {error.strerror}") from None
    typer.echo(f"{written} prompts written to {output}")
