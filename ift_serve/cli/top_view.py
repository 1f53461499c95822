"""How `ift-serve top` shows a server's state: figures in one to three columns, then the adapters that have room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ift_serve.cli.server_state import AdapterLine, Latency, ServerState

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

_COLUMN = 38
"""Cells that a name and its value take."""
_ABOVE_ADAPTERS = 4
"""Lines of the title, and of the head of the adapters' table."""


def _milliseconds(latency: Latency) -> str:
    """Median and 99th percentile."""
    if latency.p50 is None or latency.p99 is None:
        return "-"
    return " / ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in (latency.p50, latency.p99))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def figures(state: ServerState) -> list[tuple[str, str]]:
    """Names and values."""
    processes = [
        (f"{process}: cores, MiB", f"{cores:.2f}, {state.memory_bytes.get(process, 0) / 2**20:.0f}")
        for process, cores in sorted(state.cpu_cores.items())
    ]
    return [
        ("calls in flight", str(state.calls_in_flight)),
        ("calls/s, failed/s", f"{state.calls_per_second:.1f}, {state.failed_calls_per_second:.1f}"),
        ("requests waiting", str(state.requests_waiting)),
        ("requests running", str(state.requests_running)),
        ("sequences running", str(state.sequences_running)),
        ("generated tokens/s", f"{state.generated_tokens_per_second:.1f}"),
        ("prompt tokens/s", f"{state.prompt_tokens_per_second:.1f}"),
        ("cache used", _percent(state.cache_share)),
        ("cache reusable", _percent(state.cache_reusable_share)),
        ("prompt from cache", _percent(state.cache_hit_share)),
        ("first token ms p50/p99", _milliseconds(state.first_token)),
        ("between tokens ms", _milliseconds(state.inter_token)),
        ("queue ms", _milliseconds(state.queue)),
        ("engine step ms", _milliseconds(state.step)),
        ("preemptions", str(state.preemptions)),
        ("engine restarts", str(state.engine_restarts)),
        *processes,
    ]


def view(state: ServerState, width: int, height: int | None = None) -> Group:
    """All of it within ``width`` cells; where there is a ``height``, adapters that have no room are counted."""
    from rich.console import Group
    from rich.text import Text

    ready = ("ready", "green") if state.is_ready else ("NOT READY", "bold red")
    title = Text.assemble((state.model or "ift-serve", "bold"), "  ", ready, overflow="ellipsis", no_wrap=True)
    shown = figures(state)
    columns = max(1, min(3, width // _COLUMN))
    lines = -(-len(shown) // columns)
    parts: list[RenderableType] = [title, _grid(shown, columns, lines)]
    parts += [Text(note, style="yellow", overflow="fold") for note in state.notes]
    if state.adapters:
        left = None if height is None else max(1, height - lines - _ABOVE_ADAPTERS - len(state.notes))
        parts.append(_adapters(state.adapters, left, width))
    return Group(*parts)


def _grid(shown: list[tuple[str, str]], columns: int, lines: int) -> Table:
    """Down the first column, then down the next."""
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    for _ in range(columns):
        table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=10)
    for line in range(lines):
        cells = [cell for pair in shown[line::lines] for cell in pair]
        table.add_row(*cells)
    return table


def _adapters(adapters: list[AdapterLine], left: int | None, width: int) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("adapter", no_wrap=True, overflow="ellipsis")
    table.add_column("in flight", justify="right", no_wrap=True)
    is_wide = width >= 2 * _COLUMN
    if is_wide:
        table.add_column("state", no_wrap=True)
        table.add_column("MiB", justify="right", no_wrap=True)
    fits = adapters if left is None or len(adapters) <= left else adapters[: max(0, left - 1)]
    for line in fits:
        mib = "-" if line.bytes is None else f"{line.bytes / 2**20:.1f}"
        told = (line.state or "-", mib) if is_wide else ()
        table.add_row(escape(line.name), str(line.in_flight), *told)
    if len(fits) < len(adapters):
        table.add_row(f"and {len(adapters) - len(fits)} more")
    return table
