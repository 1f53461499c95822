"""`ift-serve adapters`: the adapters of a server, and what is in a directory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ift_serve.cli.connect import (
    DEFAULT_SERVER,
    Authority,
    Certificate,
    ClientOptions,
    Json,
    Key,
    Server,
    TokenFile,
    fail,
    readable_errors,
)

if TYPE_CHECKING:
    from ift_serve.client import Adapter, Client

adapters = typer.Typer(help="Load, unload and inspect adapters.", no_args_is_help=True)


def _client(options: ClientOptions, timeout: float | None = 600.0) -> Client:
    from ift_serve.client import Client

    return Client(options.server, timeout=timeout, **options.arguments())


def _show(found: list[Adapter], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(a) for a in found]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "version", "state", "rank", "components", "MiB", "in flight", "path")
    for a in found:
        table.add_row(
            a.name, a.version, a.state, str(a.rank), ", ".join(a.components), f"{a.bytes / 2**20:.1f}",
            str(a.in_flight), a.path,
        )  # fmt: skip
    Console().print(table)


@adapters.command("list")
def list_adapters(
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    authority: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """All resident versions."""
    options = ClientOptions(server, token_file, authority, certificate, key)
    with readable_errors(), _client(options) as client:
        _show(client.adapters(), as_json)


@adapters.command()
def load(
    name: Annotated[str, typer.Argument(help="name for requests")],
    path: Annotated[str, typer.Argument(help="directory below an adapter root of the server")],
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    authority: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Load a directory as a new version; requests in flight finish on the old one."""
    options = ClientOptions(server, token_file, authority, certificate, key)
    with readable_errors(), _client(options) as client:
        _show([client.load_adapter(name, path)], as_json)


@adapters.command()
def unload(
    reference: Annotated[str, typer.Argument(help="name, or name@version")],
    drain_seconds: Annotated[float, typer.Option(help="time for requests in flight", min=0, max=3600)] = 60.0,
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    authority: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Refuse new requests, wait for those in flight, free the memory."""
    options = ClientOptions(server, token_file, authority, certificate, key)
    with readable_errors(), _client(options, drain_seconds + 60.0) as client:
        _show(client.unload_adapter(reference, drain_seconds=drain_seconds), as_json)


@adapters.command()
def watch(
    server: Server = DEFAULT_SERVER,
    token_file: TokenFile = None,
    authority: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Every change, until Ctrl-C."""
    options = ClientOptions(server, token_file, authority, certificate, key)
    with readable_errors(), _client(options) as client:
        try:
            for adapter in client.watch_adapters():
                line = (
                    json.dumps(asdict(adapter))
                    if as_json
                    else f"{adapter}{': ' * bool(adapter.message)}{adapter.message}"
                )
                typer.echo(line)
        except KeyboardInterrupt:
            return


@adapters.command()
def inspect(
    directory: Annotated[Path, typer.Argument(help="an adapter directory", exists=True, file_okay=False)],
    base: Annotated[
        Path | None, typer.Option(help="the base model's directory; none: the embedded model", exists=True)
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a directory against its base model, and say what is in it."""
    from ift_serve.embedded import model_path
    from ift_serve.modeling.adapters.base import BaseFacts
    from ift_serve.modeling.adapters.explain import explain
    from ift_serve.modeling.adapters.reader import read_adapter
    from ift_serve.modeling.adapters.weights import AdapterError

    try:
        found = explain(read_adapter(directory, BaseFacts.of_directory(base or model_path())))
    except AdapterError as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(found))
        return
    _explain(found)


def _explain(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    lora, base = found["lora"], found["base"]
    table = Table(show_header=False, box=None)
    table.add_row("version", found["version"])
    table.add_row("memory", f"{found['bytes'] / 2**20:.2f} MiB")
    ranks = ", ".join(map(str, lora["ranks"]))
    table.add_row("LoRA", f"{lora['modules']} modules ({', '.join(lora['kinds'])}), rank {ranks}" if ranks else "none")
    for name, value in found["components"].items():
        table.add_row(name, "on" if value is True else str(value))
    if found["modules_to_save"]:
        table.add_row("replaces", ", ".join(found["modules_to_save"]))
    for path, count in found["trainable_tokens"].items():
        table.add_row("trained tokens", f"{count} of {path}")
    if base is not None:
        table.add_row("base", f"{base['architecture']}, fingerprint {base['fingerprint'][:12]}")
    for name, score in found["scores"].items():
        table.add_row(f"score: {name}", str(score))
    Console().print("[green]right[/green]: every tensor fits the base model")
    Console().print(table)
