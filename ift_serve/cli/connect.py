"""Options that every command that talks to a server shares, and how its errors are shown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Server = Annotated[str, typer.Option(help="host:port of the server", envvar="IFT_SERVE_SERVER")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="file that holds the bearer token (or set IFT_SERVE_TOKEN)", exists=True, dir_okay=False),
]
Authority = Annotated[
    Path | None, typer.Option(help="certificate authority of the server, for TLS", exists=True, dir_okay=False)
]
Certificate = Annotated[Path | None, typer.Option(help="own certificate, for mutual TLS", exists=True, dir_okay=False)]
Key = Annotated[Path | None, typer.Option(help="key of the own certificate", exists=True, dir_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="print JSON for programs")]
DEFAULT_SERVER = "127.0.0.1:50051"


@dataclass(frozen=True)
class ClientOptions:
    """Arguments of a client, from the command line."""

    server: str
    token_file: Path | None = None
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of Client and AsyncClient, without the target."""
        token = os.environ.get("IFT_SERVE_TOKEN")
        if self.token_file is not None:
            token = self.token_file.read_text(encoding="utf-8").strip()
        return {"token": token, "authority": self.authority, "certificate": self.certificate, "key": self.key}


def fail(message: str) -> typer.Exit:
    """Print an error and give the exit to raise."""
    typer.secho(f"error: {message}", fg="red", err=True)
    return typer.Exit(1)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Show what the server or the arguments were unhappy about, without a traceback."""
    from ift_serve.client.errors import ServerError

    try:
        yield
    except ServerError as error:
        hint = ""
        if error.code == "UNAVAILABLE":
            hint = " (is the server running? start one: ift-serve serve)"
        raise fail(f"{error}{hint}") from error
    except ValueError as error:
        raise fail(str(error)) from error
