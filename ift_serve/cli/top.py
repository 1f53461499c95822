"""`ift-serve top`: how a running server is, live, or once for programs."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ift_serve.cli.connect import ClientOptions, Json, connected, fail, readable_errors

if TYPE_CHECKING:
    from ift_serve.cli.server_state import ServerState
    from ift_serve.client import Client

_METRICS_PORT = 9464
_PATIENCE = 2.0
"""Seconds for an rpc: the metrics are shown without what it would tell."""


def metrics_url(server: str, given: str | None) -> str:
    """``given`` (a URL, or HOST:PORT), or the server's host with the usual port."""
    if given is None:
        host = "127.0.0.1" if server.startswith("unix:") else server.rpartition(":")[0] or server
        given = f"{host}:{_METRICS_PORT}"
    return given if given.startswith(("http://", "https://")) else f"http://{given}/metrics"


def states(client: Client, url: str, interval: float, stop: threading.Event) -> Iterator[ServerState]:
    """One after each interval, until ``stop`` is set. Raises ScrapeError where the first scrape fails."""
    from ift_serve.cli.scraped_metrics import Scrape, ScrapeError, scrape
    from ift_serve.cli.server_state import server_state

    before = scrape(url)
    while not stop.wait(interval):
        notes: list[str] = []
        model, adapters = _told(client, notes)
        try:
            after = scrape(url)
        except ScrapeError as error:
            yield server_state(before, Scrape(time.monotonic()), model, adapters, [*notes, str(error)])
            continue
        yield server_state(before, after, model, adapters, notes)
        before = after


def _told(client: Client, notes: list[str]) -> tuple[str, dict[str, tuple[str, int]]]:
    """The model's name, and state and bytes of adapters, as rpcs tell them; ``notes``: which did not."""
    from ift_serve.client.errors import ServerError

    try:
        model = client.model(timeout=_PATIENCE).name
    except ServerError as error:
        notes.append(f"model and adapters are not known: {error}")
        return "", {}
    try:
        found = client.adapters(timeout=_PATIENCE)
    except ServerError as error:
        notes.append(f"states of adapters are not known: {error}")
        return model, {}
    return model, {f"{a.name}@{a.version}": (a.state, a.bytes) for a in found}


@contextlib.contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that an interrupt sets. Python's own exception is lost where it meets a callback of a library."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@connected
def top(
    options: ClientOptions,
    metrics: Annotated[
        str | None, typer.Option(help="HOST:PORT or URL of the metrics; none: the server's host, port 9464")
    ] = None,
    interval: Annotated[float, typer.Option(help="seconds between two looks", min=0.1)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="look for one interval, print, and end")] = False,
    as_json: Json = False,
) -> None:
    """Requests, queue, cache, tokens a second, latencies and adapters of a running server."""
    from rich.console import Console
    from rich.live import Live

    from ift_serve.cli.scraped_metrics import ScrapeError
    from ift_serve.cli.top_view import view
    from ift_serve.client import Client

    console = Console()
    with readable_errors():
        client = Client(options.server, timeout=_PATIENCE, retries=0, **options.arguments())
    try:
        with client, _interruption() as stop:
            looks = states(client, metrics_url(options.server, metrics), interval, stop)
            if as_json:
                for state in looks:
                    print(json.dumps(asdict(state)), flush=True)
                    if once:
                        return
            if once or not console.is_terminal:
                for state in looks:
                    console.print(view(state, console.width))
                    return
                return
            with Live(console=console, screen=True, auto_refresh=False) as live:
                for state in looks:
                    live.update(view(state, console.width, console.height), refresh=True)
    except ScrapeError as error:
        raise fail(str(error)) from None
