"""`ift-serve data`: instruction data made, looked at, judged; one file a subcommand."""

from __future__ import annotations

import typer

from ift_serve.cli.data_held_out import held_out
from ift_serve.cli.data_preview import preview

app = typer.Typer(help="Make instruction data and look at it.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def data() -> None:
    """Make instruction data and look at it."""


app.command()(preview)
app.command("held-out")(held_out)
