"""`ift-serve data review`: people decide about flagged records on a local page."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from ift_serve.cli.data_runs import readable_data_errors


def review(
    store: Annotated[Path, typer.Argument(help="store of records", exists=True, dir_okay=False)],
    reviewer: Annotated[
        list[str] | None, typer.Option(help="name of a reviewer, who gets a link of their own; may be repeated")
    ] = None,
    overlap: Annotated[
        float,
        typer.Option(help="share of the records that a second reviewer sees too, for the agreement", min=0, max=1),
    ] = 0.1,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0: any that is free", min=0, max=65535)] = 0,
) -> None:
    """Open a page with the flagged records: accept, edit or reject them, one by one, by keyboard.

    The page is for this machine alone. Decisions are in the store at once; two reviewers never have the same record.
    """
    with readable_data_errors():
        from ift_training.data.quality.errors import QualityError
        from ift_training.data.quality.findings import FindingStore
        from ift_training.data.quality.review.queue import ReviewQueue
        from ift_training.data.quality.review.server import HOST, bound_socket, serve, tokens_of
        from ift_training.data.quality.run import open_store

        names = reviewer or [getpass.getuser()]
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise QualityError("--reviewer: give each reviewer a name of their own")
        with open_store(store) as opened, FindingStore(store) as findings:
            queue = ReviewQueue(opened, overlap=overlap)
            tokens = tokens_of(names)
            listening = bound_socket(port)
            for token, name in tokens.items():
                typer.echo(f"{name}: http://{HOST}:{listening.getsockname()[1]}/#{token}")
            typer.echo("open the link; Ctrl+C ends the review, and what was decided stays", err=True)
            try:
                serve(queue, tokens, findings, listening)
            finally:
                queue.close()
