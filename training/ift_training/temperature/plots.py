"""The run as pictures: estimated rewards and temperatures by step, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_training.temperature.calibration import Calibration, Reliability

_DPI = 110
_PANELS = (
    ("score", "reward, estimated on held-out prompts"),
    ("factor", "mean T / T_0"),
    ("effective", "share in use"),
)


def plot_curves(history: Sequence[Mapping[str, Any]], path: Path, title: str, written: int) -> None:
    """Reward, temperature and the share of answers that the estimate rests on, by step and task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2))
    steps = [line["step"] for line in history]
    for panel, (name, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for key in sorted(key for key in history[0] if key == name or key.startswith(f"{name}_")):
            whole = key == name
            shown = "all" if whole else key.removeprefix(f"{name}_")
            panel.plot(steps, [line[key] for line in history], label=shown, linewidth=2.4 if whole else 1.1)
        panel.axvline(written, color="black", linewidth=0.8, linestyle=":", label=f"written: step {written}")
        panel.set(xlabel="step", title=label)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)


def plot_reliability(found: Calibration, path: Path, title: str) -> None:
    """Accuracy against confidence, before and after, with how many tokens each bin holds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, name, judged in zip(
        panels, ("T = 1", f"T = {found.fitted:.3f}"), (found.before, found.after), strict=True
    ):
        _draw(panel, name, judged)
    panels[0].set_ylabel("share that is right")
    figure.suptitle(f"{title}: {found.tokens} held-out tokens")
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)


def _draw(panel: Any, name: str, judged: Reliability) -> None:
    bins = len(judged.counts)
    places, total = [(i + 0.5) / bins for i in range(bins)], sum(judged.counts)
    panel.bar(places, [c / total for c in judged.counts], width=1 / bins, color="0.85", label="share of the tokens")
    filled = [i for i in range(bins) if judged.counts[i]]
    panel.plot(
        [judged.confidence[i] for i in filled], [judged.accuracy[i] for i in filled], marker="o", label="measured"
    )
    panel.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="as confident as right")
    panel.set(xlabel="confidence", title=f"{name}: ECE {100 * judged.error:.2f} %", xlim=(0, 1), ylim=(0, 1))
    panel.legend(fontsize="x-small", loc="upper left")
