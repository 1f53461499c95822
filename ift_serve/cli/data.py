"""`ift-serve data`: instruction data made, looked at, judged; one file a subcommand."""

from __future__ import annotations

import typer

from ift_serve.cli.data_convert import convert
from ift_serve.cli.data_evolve import evolve
from ift_serve.cli.data_filter import filter_records
from ift_serve.cli.data_generate import generate
from ift_serve.cli.data_held_out import held_out
from ift_serve.cli.data_preview import preview
from ift_serve.cli.data_report import report
from ift_serve.cli.data_review import review

app = typer.Typer(help="Make instruction data and look at it.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def data() -> None:
    """Make instruction data and look at it."""


for command in (preview, convert, generate, evolve, report, review):
    app.command()(command)
app.command("held-out")(held_out)
app.command("filter")(filter_records)
