"""Options that every command that talks to a server shares, and how its errors are shown."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

Json = Annotated[bool, typer.Option("--json", help="print JSON for programs")]
AdapterName = Annotated[str, typer.Option(help="adapter to answer with: name, or name@version")]


def under_way(text: str) -> None:
    """Tell a person at once what is waited for, on the error stream: the output is for what was asked."""
    typer.secho(text, dim=True, err=True)


def _file(text: str) -> Any:
    return typer.Option(help=text, exists=True, dir_okay=False)


@dataclass(frozen=True)
class ClientOptions:
    """How to reach a server. Every field is an option of the commands that are :func:`connected`."""

    server: Annotated[str, typer.Option(help="host:port of the server", envvar="IFT_SERVE_SERVER")] = "127.0.0.1:50051"
    token_file: Annotated[Path | None, _file("file that holds the bearer token (or set IFT_SERVE_TOKEN)")] = None
    authority: Annotated[Path | None, _file("certificate authority of the server, for TLS")] = None
    certificate: Annotated[Path | None, _file("own certificate, for mutual TLS")] = None
    key: Annotated[Path | None, _file("key of the own certificate")] = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of Client and AsyncClient, without the target."""
        token = os.environ.get("IFT_SERVE_TOKEN")
        if self.token_file is not None:
            token = self.token_file.read_text(encoding="utf-8").strip()
        return {"token": token, "authority": self.authority, "certificate": self.certificate, "key": self.key}


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of its parameters that are groups of options, such as :class:`ClientOptions`.

    The fields of the first group, which says how to reach the server, come last.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    own = [
        p.replace(annotation=hints[p.name])
        for p in inspect.signature(command).parameters.values()
        if p.name not in groups
    ]
    options = {name: _options(kind) for name, kind in groups.items()}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {name: groups[name](**{p.name: given.pop(p.name) for p in options[name]}) for name in groups}
        command(**made, **given)

    first, *others = options.values()
    listed = (*own, *(p for group in (*others, first) for p in group))
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in listed]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [p.replace(annotation=hints[p.name]) for p in inspect.signature(group).parameters.values()]


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
