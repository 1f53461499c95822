"""The curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NOT_CURVES = {
    "epoch", "step", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
}  # fmt: skip

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


def plot(history: History, path: Path, title: str) -> bool:
    """Losses, scores and the rest, one panel each, as a PNG; False if there is nothing to draw."""
    from matplotlib.figure import Figure

    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, points in series(history).items():
        groups.setdefault(_group(name), {})[name] = points
    if not groups:
        return False
    figure = Figure(figsize=(6 * len(groups), 4))
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for panel, (group, curves) in zip(panels, groups.items(), strict=True):
        for name, points in curves.items():
            mark = "o" if len(points) < 20 else ""
            panel.plot(*zip(*points, strict=True), label=name, marker=mark, markersize=3, linewidth=1)
        panel.set(xlabel="step", title=group)
        panel.legend(fontsize="x-small")
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def _group(name: str) -> str:
    if "score" in name:
        return "share of answers that pass"
    if "loss" in name or name.startswith("eval_"):
        return "loss"
    return {"learning_rate": "learning rate", "grad_norm": "gradient norm"}.get(name, "other")
