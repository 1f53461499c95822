"""The curves of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOT_CURVES = {
    "epoch",
    "step",
    "total_flos",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
}

_SCORES = "share of answers that pass"
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")
_COLUMNS, _WIDTH, _HEIGHT = 3, 6.0, 4.0
"""Panels in a row, and the inches of one."""
_HEAD, _FOOT, _LEFT, _RIGHT = 0.4, 0.55, 0.7, 0.2
"""Inches around the panels: a title above, numbers and their names below and beside."""

Curves = dict[str, list[tuple[int, float]]]
History = Sequence[Mapping[str, Any]]


def series(history: History) -> Curves:
    """What was logged, by name: (step, value) pairs."""
    found: Curves = {}
    for entry in history:
        for name, value in entry.items():
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if plain and name not in _NOT_CURVES and not name.endswith(("_runtime", "_per_second")):
                found.setdefault(name, []).append((int(entry.get("step", 0)), float(value)))
    return found


def plot(history: History, path: Path, title: str, written: int | None = None) -> bool:
    """Losses, scores and the rest, one panel each, as a PNG; False if there is nothing to draw.

    written: the step whose weights were written, marked in every panel.
    """
    figure = draw(history, title, written)
    if figure is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def draw(history: History, title: str, written: int | None = None) -> Figure | None:
    """The picture that :func:`plot` saves: panels in rows of three, None if there are none."""
    from matplotlib.figure import Figure

    groups: dict[str, Curves] = {}
    for name, points in series(history).items():
        groups.setdefault(_group(name), {})[name] = points
    if not groups:
        return None
    columns = min(_COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    width, height = _WIDTH * columns, _HEIGHT * rows + _HEAD
    figure = Figure(figsize=(width, height))
    # Set by hand: a layout that measures every text takes as long as the drawing.
    figure.subplots_adjust(
        left=_LEFT / width, right=1 - _RIGHT / width, bottom=_FOOT / height, top=1 - 2 * _HEAD / height,
        wspace=0.2, hspace=0.3,
    )  # fmt: skip
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (group, curves) in zip(panels, groups.items(), strict=False):
        _draw_panel(panel, group, _told_apart(curves), written)
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    figure.suptitle(title)
    return figure


def _draw_panel(panel: Any, group: str, curves: Curves, written: int | None) -> None:
    for number, (name, points) in enumerate(curves.items()):
        # Lines that come close to one another are told apart by dash, marker and width, the first ones the widest.
        panel.plot(
            *zip(*points, strict=True),
            label=name,
            linestyle=_DASHES[number % len(_DASHES)],
            marker=_MARKERS[number % len(_MARKERS)] if len(points) < 20 else "",
            markersize=max(3, 7 - number),
            fillstyle="none",
            linewidth=max(1.0, 2.5 - number / 2),
        )
    if written is not None:
        label = f"written: step {written}"
        panel.axvline(written, color="black", linewidth=0.8, linestyle=(0, (1, 3)), label=label)
    if group == _SCORES:
        panel.set_ylim(-0.02, 1.02)
    panel.set(xlabel="step", title=group)
    panel.legend(fontsize="x-small")
    panel.grid(alpha=0.3)


def _told_apart(curves: Curves) -> Curves:
    """Curves that lie on one another as one, which bears all of their names: the later would hide the earlier."""
    merged: list[tuple[list[str], list[tuple[int, float]]]] = []
    for name, points in curves.items():
        names = next((names for names, others in merged if _same(points, others)), None)
        if names is None:
            merged.append(([name], points))
        else:
            names.append(name)
    return {" = ".join(names): points for names, points in merged}


def _same(first: list[tuple[int, float]], second: list[tuple[int, float]]) -> bool:
    """Whether two curves cannot be told apart in a picture: the logged values are rounded."""
    if [step for step, _ in first] != [step for step, _ in second]:
        return False
    return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for (_, a), (_, b) in zip(first, second, strict=True))


def _group(name: str) -> str:
    plain = name.removeprefix("eval_")
    if plain.startswith(("task_loss_", "task_weight_")):
        return "loss by task" if plain.startswith("task_loss_") else "weight by task"
    if plain.startswith("score"):
        return _SCORES
    if "loss" in name or name.startswith("eval_"):
        return "loss"
    return {"learning_rate": "learning rate", "grad_norm": "gradient norm"}.get(name, "other")
