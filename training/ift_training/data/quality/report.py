"""What the filters did to a store, as tables and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.findings import FindingStore
from ift_training.data.quality.run import FilterReport

if TYPE_CHECKING:
    from rich.console import RenderableType

_STATUSES = ("kept", "flagged", "rejected")
_BINS = 40
_COLUMNS = 3


def summary_table(found: FilterReport) -> RenderableType:
    """For a terminal: records by status, by reason, by level, and what the stages took."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    counted = ", ".join(f"{found.counts.get(status, 0):,} {status}" for status in _STATUSES)
    good = f"; {found.taken_as_good:,} taken as good" if found.taken_as_good else ""
    why = Table("filter", "flagged", "rejected", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, own in found.reasons.items():
        why.add_row(name, f"{own.get('flagged', 0):,}", f"{own.get('rejected', 0):,}")
    levels = Table("level", "records", "kept by thresholds", "kept", box=box.SIMPLE_HEAD, pad_edge=False)
    for level in found.levels:
        rates = (f"{level[name]:.1%}" for name in ("before", "after"))
        levels.add_row(f"{level['level']:g}", f"{level['records']:,.0f}", *rates)
    times = Table("stage", "scored", "there before", "seconds", "a second", box=box.SIMPLE_HEAD, pad_edge=False)
    for stage in found.stages:
        seconds = stage["seconds"]
        rate = f"{stage['scored'] / seconds:,.0f}" if seconds and stage["scored"] else ""
        times.add_row(stage["name"], f"{stage['scored']:,}", f"{stage['kept']:,}", f"{seconds:.1f}", rate)
    return Group(f"{found.records:,} records: {counted}{good}", why, levels, times)


def write_report(store: RecordStore, found: FilterReport, folder: Path) -> None:
    """``quality.json``, ``quality.md``, ``acceptance.png`` and ``scores.png``."""
    assert store.path is not None
    folder.mkdir(parents=True, exist_ok=True)
    with FindingStore(store.path) as findings:
        histograms = _histograms(findings.scores())
    document = asdict(found) | {"histograms": histograms}
    (folder / "quality.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "quality.md").write_text(_markdown(found), encoding="utf-8")
    _draw_acceptance(found, folder / "acceptance.png")
    _draw_scores(histograms, found.recipe, folder / "scores.png")


def _histograms(scores: Any) -> dict[str, list[int]]:
    """By filter: how many scores are in each of forty equal parts of 0 to 1."""
    found: dict[str, Any] = {}
    for name, score in scores:
        own = found.setdefault(name, np.zeros(_BINS, np.int64))
        own[min(_BINS - 1, int(score * _BINS))] += 1
    return {name: own.tolist() for name, own in sorted(found.items())}


def _markdown(found: FilterReport) -> str:
    counted = ", ".join(f"{found.counts.get(status, 0):,} {status}" for status in _STATUSES)
    lines = [f"{found.records:,} records: {counted}.", "", "| filter | flagged | rejected |", "| --- | --- | --- |"]
    for name, own in found.reasons.items():
        lines.append(f"| {name} | {own.get('flagged', 0):,} | {own.get('rejected', 0):,} |")
    lines += ["", "| level | records | kept by thresholds | kept |", "| --- | --- | --- | --- |"]
    for level in found.levels:
        lines.append(f"| {level['level']:g} | {level['records']:,} | {level['before']:.1%} | {level['after']:.1%} |")
    return "\n".join(lines) + "\n"


def _draw_acceptance(found: FilterReport, path: Path) -> None:
    """Shares that are kept by level, before and after balancing, with the number of records."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    panel = figure.subplots()
    places = np.arange(len(found.levels))
    for shift, name, label in ((-0.2, "before", "by thresholds alone"), (0.2, "after", "balanced")):
        panel.bar(places + shift, [level[name] for level in found.levels], 0.38, label=label)
    ticks = [f"{level['level']:g}\n({level['records']:,.0f})" for level in found.levels]
    panel.set_xticks(places, ticks)
    panel.set(xlabel="level of complexity (records)", ylabel="share that is kept", ylim=(0, 1.05))
    panel.grid(axis="y", alpha=0.3)
    if found.levels:
        panel.legend()
    figure.savefig(path, dpi=110)


def _draw_scores(histograms: Mapping[str, Sequence[int]], recipe: Mapping[str, Any], path: Path) -> None:
    """The scores of each filter, with its thresholds."""
    from matplotlib.figure import Figure

    rows = max(1, -(-len(histograms) // _COLUMNS))
    figure = Figure(figsize=(4.2 * _COLUMNS, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    edges = np.linspace(0, 1, _BINS + 1)
    for panel, (name, counts) in zip(panels, histograms.items(), strict=False):
        panel.stairs(counts, edges, fill=True, alpha=0.7)
        limits = recipe.get(name, {})
        for key, colour in (("flag", "C2"), ("reject", "C3")):
            if limits.get(key) is not None:
                panel.axvline(limits[key], color=colour, linestyle="--", linewidth=1, label=key)
        panel.set(title=name, yscale="log" if max(counts) > 100 else "linear", xlim=(-0.02, 1.02))
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize="x-small")
    for panel in panels[len(histograms) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=110)
