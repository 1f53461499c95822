"""Bars for a person who waits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def stage(text: str, *, shown: bool) -> None:
    """Tell a person what is waited for, on the error stream: the output is for results."""
    if shown:
        Console(stderr=True).print(Text(text, style="dim"), soft_wrap=True)


def bar(console: Console) -> Progress:
    """A bar with a note behind it; nothing where the output is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def reading(console: Console, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    """A bar for records that are looked at; gives the function to call with their number."""
    if not shown or not console.is_terminal:
        yield None
        return
    with bar(console) as shown_bar:
        task = shown_bar.add_task("reading data", total=None, note="")
        yield lambda count: shown_bar.advance(task, count)


@contextlib.contextmanager
def counting(console: Console, text: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar for ``total`` things; gives ``done(note="", advance=1)``. A note stays until there is another."""
    with bar(console) as shown:
        task = shown.add_task(text, total=total, note="")

        def done(note: str = "", advance: int = 1) -> None:
            if note:
                shown.update(task, note=note)
            shown.advance(task, advance)

        yield done
