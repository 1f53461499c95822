"""Draws what the engine's memory was made of during a soak: ``python benchmarks/soak_plot.py REPORT.json OUT.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_LINES = {
    "resident": lambda line: line["system"]["rss"],
    "C allocator, in use": lambda line: line["allocator"].get("used"),
    "C allocator, free": lambda line: line["allocator"].get("free"),
    "torch tensors": lambda line: line["objects"]["tensor_mib"],
    "resident adapters": lambda line: line["adapter_mib"],
}


def draw(report: dict[str, Any], path: Path) -> None:
    """MiB over minutes, and Python's objects below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = report["engine_memory"]
    minutes = [line["at"] / 60 for line in lines]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 6), height_ratios=(2, 1))
    for name, value in _LINES.items():
        above.plot(minutes, [value(line) for line in lines], label=name)
    above.set_ylabel("MiB")
    above.set_ylim(bottom=0)
    above.legend()
    for name in ("blocks", "tracked", "tensors"):
        below.plot(minutes, [line["objects"][name] for line in lines], label=f"Python: {name}")
    below.set_yscale("log")
    below.set_xlabel("minutes")
    below.legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text().splitlines()[-1]), Path(sys.argv[2]))
