"""`ift-serve adapters`: the adapters of a server, and what is in a directory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ift_serve.cli.base_model import base_of, is_base
from ift_serve.cli.connect import ClientOptions, Json, connected, fail, readable_errors
from ift_serve.cli.merge import merge
from ift_serve.cli.signing import keygen, sign, verify

if TYPE_CHECKING:
    from rich.console import Console

    from ift_serve.client import Adapter, Client
    from ift_serve.modeling.adapter_format.base import BaseMetadata

_WIDE = 400
adapters = typer.Typer(help="Load, unload, inspect, merge and sign adapters.", no_args_is_help=True)
for command in (merge, keygen, sign, verify):
    adapters.command()(command)


def _client(options: ClientOptions, timeout: float | None = 600.0) -> Client:
    from ift_serve.client import Client

    return Client(options.server, timeout=timeout, **options.arguments())


def _show(found: list[Adapter], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(a) for a in found]))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Table

    names = ("name", "version", "state", "rank", "components", "MiB", "in flight", "path")
    rows = [
        (
            a.name,
            a.version,
            a.state,
            str(a.rank),
            ", ".join(a.components),
            f"{a.bytes / 2**20:.1f}",
            str(a.in_flight),
            a.path,
        )
        for a in found
    ]
    table = Table()
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:
        # In a pipe nothing is cut: programs and people read the whole.
        console.width = _WIDE
    if Measurement.get(console, console.options.update(width=_WIDE), table).maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        _print_values([(name, value) for name, value in zip(names, row, strict=True) if value], console)
        console.print()


def _print_values(lines: list[tuple[str, str]], console: Console) -> None:
    """Names with their values, a line each; a value that is too long goes on below itself."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(escape(name), escape(value))
    console.print(table)


@adapters.command("list")
@connected
def list_adapters(
    options: ClientOptions,
    as_json: Json = False,
) -> None:
    """All versions that are served, in memory or evicted, and those that drain."""
    with readable_errors(), _client(options) as client:
        _show(client.adapters(), as_json)


@adapters.command()
@connected
def load(
    options: ClientOptions,
    name: Annotated[str, typer.Argument(help="name for requests")],
    path: Annotated[str, typer.Argument(help="directory below an adapter root of the server")],
    as_json: Json = False,
) -> None:
    """Load a directory as a new version; requests in flight finish on the old one."""
    with readable_errors(), _client(options) as client:
        _show([client.load_adapter(name, path)], as_json)


@adapters.command()
@connected
def unload(
    options: ClientOptions,
    reference: Annotated[str, typer.Argument(help="name, or name@version")],
    drain_seconds: Annotated[float, typer.Option(help="time for requests in flight", min=0, max=3600)] = 60.0,
    as_json: Json = False,
) -> None:
    """Refuse new requests, wait for those in flight, free the memory."""
    with readable_errors(), _client(options, drain_seconds + 60.0) as client:
        _show(client.unload_adapter(reference, drain_seconds=drain_seconds), as_json)


@adapters.command()
@connected
def watch(
    options: ClientOptions,
    as_json: Json = False,
) -> None:
    """Every change, until Ctrl-C."""
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
    directory: Annotated[Path, typer.Argument(help="an adapter directory")],
    base: Annotated[
        str,
        typer.Option(help="the base model: directory, cached hub id, ift-tiny; none: the one that the adapter names"),
    ] = "",
    max_rank: Annotated[int, typer.Option(help="the largest rank that the server takes (--max-lora-rank)", min=1)] = 64,
    as_json: Json = False,
) -> None:
    """Check a directory against its base model, and say what is in it; exit code 1 if it would be refused."""
    from ift_serve.modeling.adapter_format.errors import AdapterError
    from ift_serve.modeling.adapter_format.explain import explain, rows
    from ift_serve.modeling.adapter_format.reader import read_adapter

    metadata, name = _base_facts(directory, base)
    try:
        weights = read_adapter(directory, metadata, max_rank=max_rank)
        weights.check_served()
        summary = explain(weights)
    except AdapterError as error:
        if as_json:
            typer.echo(json.dumps({"valid": False, "checked_against": name, "error": str(error)}))
            raise typer.Exit(1) from None
        raise fail(f"{error} (checked against {name})") from None
    if as_json:
        typer.echo(json.dumps({"valid": True, "checked_against": name, **summary}))
        return
    _explain([("checked against", name), *rows(summary)])


def _base_facts(directory: Path, base: str) -> tuple[BaseMetadata, str]:
    """Of the model that was asked for, else the one that PEFT's configuration names if it is here, else ift-tiny."""
    from ift_serve.embedded import EMBEDDED_NAME
    from ift_serve.modeling.adapter_format.base import BaseMetadata
    from ift_serve.modeling.adapter_format.config import PEFT_CONFIG
    from ift_serve.modeling.adapter_format.errors import AdapterError
    from ift_serve.modeling.adapter_format.safe_file import SafeDirectory, parse_object
    from ift_serve.modeling.checkpoint.location import NoModelError

    if not base:
        try:
            with SafeDirectory(directory) as files:
                fields = parse_object(PEFT_CONFIG, files.read(PEFT_CONFIG) or b"{}")
        except AdapterError as error:
            raise fail(str(error)) from None
        named = fields.get("base_model_name_or_path")
        base = str(named) if isinstance(named, str) and is_base(named) else EMBEDDED_NAME
    try:
        return BaseMetadata.of_directory(base_of(base)), base
    except NoModelError as error:
        raise fail(f"--base {error}") from None
    except (OSError, ValueError, KeyError) as error:
        raise fail(f"--base {base}: no model there: {error}") from None


def _explain(lines: list[tuple[str, str]]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    console.print("[green]valid[/green]: every tensor fits the base model")
    _print_values(lines, console)
