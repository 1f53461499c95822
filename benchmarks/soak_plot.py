"""Draws what the memory of engine and server process was made of during a soak.

``python benchmarks/soak_plot.py REPORT.json OUT.png``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_LINES = {
    "resident": lambda line: line["system"]["rss"],
    "C allocator, in use": lambda line: line["allocator"].get("used"),
    "C allocator, free": lambda line: line["allocator"].get("free"),
    "torch tensors": lambda line: line["objects"].get("tensor_mib"),
    "resident adapters": lambda line: line.get("adapter_mib"),
}
_COUNTS = {
    "blocks": "Python: blocks",
    "tracked": "Python: tracked objects",
    "entries": "Python: entries of containers",
    "tensors": "torch: tensors",
}


def draw(report: dict[str, Any], path: Path) -> None:
    """MiB over minutes, and counts of objects below; the engine on the left, the server process on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    processes = {name: report[key] for name, key in (("engine", "engine_memory"), ("front", "front_memory"))}
    figure, axes = pyplot.subplots(2, 2, sharex=True, figsize=(12, 6), height_ratios=(2, 1))
    for column, (process, lines) in enumerate(processes.items()):
        above, below = axes[0, column], axes[1, column]
        minutes = [line["at"] / 60 for line in lines]
        for name, value in _LINES.items():
            values = [value(line) for line in lines]
            if any(v is not None for v in values):
                above.plot(minutes, values, label=name)
        above.set_title(process)
        above.set_ylabel("MiB")
        above.set_ylim(bottom=0)
        above.legend()
        for name, shown in _COUNTS.items():
            if name in lines[0]["objects"]:
                below.plot(minutes, [line["objects"][name] for line in lines], label=shown)
        below.set_yscale("log")
        below.set_xlabel("minutes")
        below.legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text().splitlines()[-1]), Path(sys.argv[2]))
