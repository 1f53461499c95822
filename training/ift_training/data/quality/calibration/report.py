"""The calibration as a table, curves and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_training.data.quality.asked_model import AskedModel
from ift_training.data.quality.calibration.measure import Judged, Point, best, curve, judged, point, recall_by_fault
from ift_training.data.quality.calibration.sample import FAULTS, Labelled, examination, read_sample
from ift_training.data.quality.duplicates import DuplicateIndex, Sketches, runs
from ift_training.data.quality.filter import Finding
from ift_training.data.quality.filters import DUPLICATES, GOOD, Findings, score_all, text_filters, vector_filters
from ift_training.data.quality.recipe import QualityRecipe

if TYPE_CHECKING:
    from rich.console import RenderableType

_LEAST_ALIKE = 0.2
"""Similarity from which on duplicates are looked for here, so that there is a curve."""
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One filter. Each half's points are those of the recipe's thresholds, None where there is no such threshold.

    best: on the half that thresholds are chosen on; ``best_told``: the same threshold on the other half.
    """

    name: str
    good: str
    flag: dict[str, Point | None]
    reject: dict[str, Point | None]
    best: Point
    best_told: Point
    by_fault: Mapping[str, tuple[int, int]]
    curves: dict[str, list[Point]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """All filters that faults were planted for. pairs: numbers of pairs by half and fault ("good" for none)."""

    filters: Sequence[Calibrated]
    pairs: Mapping[str, Mapping[str, int]]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"pairs": self.pairs, "filters": [asdict(one) for one in self.filters]}


def calibration(recipe: QualityRecipe, asked: AskedModel | None = None) -> Calibration:
    """Every filter of the recipe on the labelled sample. Raises MissingExtraError."""
    sample = read_sample()
    pairs = [one.pair for one in sample]
    filters = [*text_filters(recipe, examination()), *vector_filters(recipe, examination(), True)]
    if recipe.entailment.use and recipe.entailment.path is not None:
        from ift_training.data.quality.entailment import Entailment

        filters.append(Entailment(recipe.entailment.path))
    if asked is not None:
        filters.append(asked)
    findings = score_all(filters, pairs)
    if recipe.duplicates.use:
        _add_duplicates(recipe, sample, findings)
    counts: dict[str, dict[str, int]] = {}
    for one in sample:
        own = counts.setdefault(one.half, {})
        own[one.fault or "good"] = own.get(one.fault or "good", 0) + 1
    names = [name for name in recipe.thresholds() if any(name in of for of in FAULTS.values())]
    made = [_calibrated(name, recipe, judged(name, sample, findings)) for name in names if name in findings[0]]
    return Calibration(made, counts)


def _add_duplicates(recipe: QualityRecipe, sample: Sequence[Labelled], findings: Sequence[Findings]) -> None:
    """The similarity of each pair to the closest one before it."""
    own = [runs(one.pair, recipe.duplicates.text, recipe.duplicates.run) for one in sample]
    sketches = Sketches(_LEAST_ALIKE)
    for each in own:
        sketches.add(each)
    index = DuplicateIndex(sketches.shared(), _LEAST_ALIKE)
    for place, (one, each) in enumerate(zip(sample, own, strict=True)):
        score, other = index.closest(place, each) if place in index else (0.0, -1)
        findings[place][DUPLICATES] = Finding(round(score, 4), "" if other < 0 else sample[other].pair.id)
        # A pair with another fault is a copy of its good one but for the fault: later ones are not held against it.
        if place in index and not one.fault:
            index.accept(place, each)


def _calibrated(name: str, recipe: QualityRecipe, rows: Sequence[Judged]) -> Calibrated:
    limits, good = recipe.thresholds()[name], GOOD[name]
    halves = {half: [row for row in rows if row.half == half] for half in ("tune", "test")}

    def at(threshold: float | None) -> dict[str, Point | None]:
        return {h: None if threshold is None else point(own, threshold, good) for h, own in halves.items()}

    chosen = best(halves["tune"], good)
    assert chosen is not None, f"{name}: the sample has no scores of it"
    return Calibrated(
        name, good, at(limits.flag), at(limits.reject), chosen, point(halves["test"], chosen.threshold, good),
        {} if limits.flag is None else recall_by_fault(halves["test"], limits.flag, good),
        {half: curve(own, good) for half, own in halves.items()},
    )  # fmt: skip


def markdown_table(found: Calibration) -> str:
    """Precision and recall at the recipe's thresholds, told on the half that no threshold was chosen on."""
    lines = [
        "| filter | flags at | precision | recall | rejects at | precision | recall | best F1 on the other half |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found.filters:
        flag, reject = one.flag["test"], one.reject["test"]
        lines.append(
            f"| {one.name} | {_cells(flag)} | {_cells(reject)} | {one.best.f1:.3f} at {one.best.threshold:g} |"
        )
    lines += ["", "| fault | filter | found |", "| --- | --- | --- |"]
    lines += [
        f"| {fault} | {one.name} | {hit} of {every} |"
        for one in found.filters
        for fault, (hit, every) in one.by_fault.items()
    ]
    return "\n".join(lines) + "\n"


def _cells(found: Point | None) -> str:
    if found is None:
        return "never | | "
    return f"{found.threshold:g} | {found.precision:.3f} | {found.recall:.3f}"


def calibration_table(found: Calibration) -> RenderableType:
    """For a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="planted faults, told on the half not chosen on")
    for head in ("filter", "flags at", "precision", "recall", "rejects at", "precision", "recall"):
        table.add_column(head)
    for one in found.filters:
        cells = [cell.strip() for at in (one.flag["test"], one.reject["test"]) for cell in _cells(at).split("|")]
        table.add_row(one.name, *cells)
    return table


def write_calibration(found: Calibration, folder: Path) -> None:
    """``calibration.json``, ``calibration.md`` and ``calibration.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.json").write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "calibration.md").write_text(markdown_table(found), encoding="utf-8")
    _draw(found, folder / "calibration.png")


def _draw(found: Calibration, path: Path) -> None:
    """Precision and recall over the threshold, a panel a filter; the recipe's thresholds are marked."""
    from matplotlib.figure import Figure

    rows = -(-len(found.filters) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for panel, one in zip(panels, found.filters, strict=False):
        for half, style in (("tune", ":"), ("test", "-")):
            points = sorted(one.curves[half], key=lambda p: p.threshold)
            at = [p.threshold for p in points]
            panel.plot(at, [p.precision for p in points], f"C0{style}", label=f"precision, {half}")
            panel.plot(at, [p.recall for p in points], f"C1{style}", label=f"recall, {half}")
        for label, marked, colour in (("flag", one.flag["test"], "C2"), ("reject", one.reject["test"], "C3")):
            if marked is not None:
                panel.axvline(marked.threshold, color=colour, linewidth=1, linestyle="--", label=label)
        panel.set(title=one.name, xlabel=f"threshold ({one.good} is good)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
        panel.grid(alpha=0.3)
    for panel in panels[len(found.filters) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=110)
