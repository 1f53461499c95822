"""The curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NOT_CURVES = {
    "epoch", "step", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
}  # fmt: skip

_SCORES = "share of answers that pass"
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")

History = Sequence[Mapping[str, Any]]


def series(history: History) -> dict[str, list[tuple[int, float]]]:
    """What was logged, by name: (step, value) pairs."""
    found: dict[str, list[tuple[int, float]]] = {}
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
    from matplotlib.figure import Figure

    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, points in series(history).items():
        groups.setdefault(_group(name), {})[name] = points
    if not groups:
        return False
    figure = Figure(figsize=(6 * len(groups), 4))
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for panel, (group, curves) in zip(panels, groups.items(), strict=True):
        for number, (name, points) in enumerate(curves.items()):
            # Lines that lie on one another are told apart by dash, marker and width, the first ones the widest.
            panel.plot(
                *zip(*points, strict=True), label=name, linestyle=_DASHES[number % len(_DASHES)],
                marker=_MARKERS[number % len(_MARKERS)] if len(points) < 20 else "", markersize=max(3, 7 - number),
                fillstyle="none", linewidth=max(1.0, 2.5 - number / 2),
            )  # fmt: skip
        if written is not None:
            label = f"written: step {written}"
            panel.axvline(written, color="black", linewidth=0.8, linestyle=(0, (1, 3)), label=label)
        if group == _SCORES:
            panel.set_ylim(-0.02, 1.02)
        panel.set(xlabel="step", title=group)
        panel.legend(fontsize="x-small")
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def _group(name: str) -> str:
    plain = name.removeprefix("eval_")
    if plain.startswith(("task_loss_", "task_weight_")):
        return "loss by task" if plain.startswith("task_loss_") else "weight by task"
    if plain.startswith("score"):
        return _SCORES
    if "loss" in name or name.startswith("eval_"):
        return "loss"
    return {"learning_rate": "learning rate", "grad_norm": "gradient norm"}.get(name, "other")
