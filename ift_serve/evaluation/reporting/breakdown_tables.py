"""Terminal tables that only some tasks have: curves, rewordings, turns, seen and unseen tasks, forgetting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table

_Cells = Callable[[dict[str, Any]], Sequence[str]]


def breakdown_tables(found: dict[str, Any]) -> Iterator[Table]:
    """One table for each part of a report that has something in it; several columns of a task are several rows."""
    for key, title, heads, cells in _TABLES:
        rows = found.get(key) or ()
        if rows:
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
            for head in heads:
                table.add_column(head, overflow="fold")
            for row in rows:
                table.add_row(*cells(row))
            yield table


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _between(row: dict[str, Any]) -> str:
    return f"{100 * row['low']:.1f}-{100 * row['high']:.1f}"


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["task"], row["model"], row["column"]


_TABLES: tuple[tuple[str, str, tuple[str, ...], _Cells], ...] = (
    (
        "curves", "by number of constraints",
        ("task", "model", "judged by", "constraints", "kept", "95 %", "all kept", "prompts"),
        lambda r: (
            *_place(r), str(r["constraints"]), _percent(r["kept"]), _between(r), _percent(r["whole"]),
            str(r["prompts"]),
        ),
    ),
    (
        "reliability", "in every wording",
        ("task", "model", "judged by", "all k", "95 %", "as it was", "of all wordings", "prompts", "left out"),
        lambda r: (
            *_place(r), _percent(r["value"]), _between(r), _percent(r["single"]), _percent(r["mean"]), str(r["groups"]),
            str(r["left_out"]),
        ),
    ),
    (
        "turns", "by turn", ("task", "model", "judged by", "turn", "kept whole", "95 %", "constraints", "prompts"),
        lambda r: (
            *_place(r), str(r["turn"]), _percent(r["value"]), _between(r), _percent(r["kept"]), str(r["prompts"]),
        ),
    ),
    (
        "parts", "seen and unseen in training",
        ("adapter", "part", "task", "model", "judged by", "kept", "95 %", "prompts"),
        lambda r: (r["adapter"], r["part"], *_place(r), _percent(r["value"]), _between(r), str(r["prompts"])),
    ),
    (
        "forgetting", "forgotten of what was not in training",
        ("adapter", "task", "judged by", "base kept", "lost", "share", "95 %", "gained", "p"),
        lambda r: (
            r["adapter"], r["task"], r["column"], str(r["kept"]), str(r["lost"]), _percent(r["share"]), _between(r),
            str(r["gained"]), f"{r['p_value']:.2g}",
        ),
    ),
    (
        "text_changes", "texts before and after", ("adapter", "task", "bits a byte", "base", "parts"),
        lambda r: (r["adapter"], r["task"], f"{r['after']:.4f}", f"{r['before']:.4f}", str(r["texts"])),
    ),
)  # fmt: skip
