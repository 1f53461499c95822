"""How long a server takes until it answers: with nothing kept, with the kernels of an installation, and again.

``python benchmarks/startup.py --model DIR --json``. Each start is a process of its own, timed from its beginning to the
line that says it is ready; what the engine was doing comes from its log. Files are in the page cache in every start.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-c", "from ift_serve.cli import main; main()")


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model's directory; none: random weights of --shape")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3, help="later starts")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def help_seconds() -> float:
    """Of ``ift-serve --help``."""
    begun = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
    return time.perf_counter() - begun


def compile_seconds(kernels: Path) -> float:
    """Of ``ift-serve compile``."""
    begun = time.perf_counter()
    subprocess.run([*COMMAND, "compile", "--cache", str(kernels)], check=True, capture_output=True)
    return time.perf_counter() - begun


def start(model: Path, cache: Path, kernels: Path) -> dict[str, Any]:
    """One start: seconds until ready, and the engine's stages in seconds."""
    kept = {"IFT_CACHE_DIR": str(cache), "IFT_KERNELS": str(kernels)}
    command = [*COMMAND, "serve", str(model), "--port", "0", "--metrics-port", "-1"]
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | kept)
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begun
        process.send_signal(signal.SIGTERM)
        process.wait()
        process.stdout.close()
        log.seek(0)
        said = log.read()
    if not line.startswith("ift-serve ready"):
        raise RuntimeError(f"the server did not start:\n{said}")
    entries = [json.loads(entry) for entry in said.splitlines() if entry.startswith("{")]
    stages = next(entry["seconds"] for entry in entries if entry["message"] == "started")
    told = [entry["message"] for entry in entries if entry["message"].startswith("starting: ")]
    return {"seconds": round(seconds, 2), "engine": stages, "told": told, "ready": line.strip()}


def measure(given: argparse.Namespace, model: Path) -> dict[str, Any]:
    """The help, a first start of each kind, later ones."""
    helps = [help_seconds() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        empty, cache, kernels = (Path(folder) / name for name in ("empty", "cache", "kernels"))
        start(model, Path(folder) / "any", Path(folder) / "of_any")  # files are in the page cache in every other
        cold = start(model, empty, Path(folder) / "none")
        compiling = compile_seconds(kernels)
        installed = start(model, cache, kernels)
        warm = [start(model, cache, kernels) for _ in range(given.rounds)]
    return {
        "model": model.name,
        "processors": len(os.sched_getaffinity(0)),
        "help": round(statistics.median(helps), 2),
        "first": cold,
        "compile": round(compiling, 1),
        "first_after_compile": installed,
        "later": sorted(warm, key=lambda one: float(one["seconds"]))[len(warm) // 2],
        "later_seconds": [one["seconds"] for one in warm],
    }


def main() -> int:
    """The command."""
    given = arguments()
    from models import build

    with tempfile.TemporaryDirectory() as folder:
        model = given.model or build(given.shape, Path(folder) / "model", "bfloat16")
        report = measure(given, model)
    print(json.dumps(report if given.json else {"benchmark": "startup", **report}, indent=None if given.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
