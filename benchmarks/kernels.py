"""How fast are the GPU kernels, and how far from the device's limits and from their peers?

``python benchmarks/kernels.py --json`` times every operation; ``--tune`` tries the tile sizes of the attention kernels
and prints the order in which they come, from which the choices in the source are made. ``--tiny`` runs everything
once at toy shapes, in the interpreter where there is no GPU: for trying the script, not for figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    parser.add_argument("--operation", action="append", default=[], help="default: all")
    parser.add_argument("--tune", action="store_true", help="tile sizes of the attention kernels")
    parser.add_argument("--tiny", action="store_true", help="toy shapes, to try the script")
    parser.add_argument("--plot", type=Path, help="write a bar chart (PNG)")
    return parser.parse_args()


def timed(case: Any, ceilings: Any) -> dict[str, Any]:
    """Time, rate and share of the ceiling; the peers' times and our share of the best of them."""
    from gpu_timing import graphed, microseconds

    ours = microseconds(graphed(case.ours) if case.graph else case.ours)
    is_bytes = case.unit == "bytes"
    rate = case.amount / ours / (1e3 if is_bytes else 1e6)
    ceiling = ceilings.copy_gb_per_second if is_bytes else ceilings.gemm_tflops
    peers = {name: round(microseconds(work), 2) for name, work in case.peers.items()}
    return {
        "operation": case.operation,
        "shape": case.shape,
        "microseconds": round(ours, 2),
        "rate": round(rate, 1),
        "unit": "GB/s" if is_bytes else "TFLOP/s",
        "share_of_ceiling": round(rate / ceiling, 3),
        "target": case.target,
        "peers": peers,
        "times_best_peer": round(min(peers.values()) / ours, 2) if peers else None,
    }


def tuned(device: Any) -> dict[str, list[dict[str, Any]]]:
    """Every tile size of the attention kernels, fastest first."""
    import kernel_cases
    from gpu_timing import microseconds

    from ift_kernels.paged_decode import triton as decode
    from ift_kernels.paged_prefill import triton as prefill

    found: dict[str, list[dict[str, Any]]] = {}
    for operation, module, name in (
        ("paged_decode", decode, "decode_choice"),
        ("paged_prefill", prefill, "prefill_choice"),
    ):
        chosen = getattr(module, name)
        for case in kernel_cases.cases(device, {operation}):
            results = list[dict[str, Any]]()
            for block_n, warps, stages in itertools.product((32, 64, 128), (4, 8), (2, 3, 4, 5)):
                setattr(
                    module,
                    name,
                    lambda *a, n=block_n, w=warps, s=stages, c=chosen: replace(c(*a), block_n=n, warps=w, stages=s),
                )
                try:
                    results.append(
                        {"block_n": block_n, "warps": warps, "stages": stages, "us": round(microseconds(case.ours), 2)}
                    )
                except Exception as error:  # a choice that needs more memory than there is says so in many ways
                    results.append({"block_n": block_n, "warps": warps, "stages": stages, "error": str(error)[:100]})
                finally:
                    setattr(module, name, chosen)
            found[f"{operation} {case.shape}"] = sorted(results, key=lambda r: r.get("us", float("inf")))
    return found


def show(report: dict[str, Any]) -> None:
    """The results as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("operation", "shape", "us", "rate", "of ceiling", "target", "peers, us", title=report["device"])
    for r in report["results"]:
        peers = ", ".join(f"{name} {us}" for name, us in r["peers"].items())
        table.add_row(
            r["operation"],
            r["shape"],
            f"{r['microseconds']}",
            f"{r['rate']} {r['unit']}",
            f"{r['share_of_ceiling']:.0%}",
            r["target"],
            peers,
        )
    Console(width=180).print(table)


def plot(report: dict[str, Any], path: Path) -> None:
    """Shares of the ceiling as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [f"{r['operation']} {r['shape']}" for r in report["results"]]
    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(labels) + 1))
    axes.barh(labels, [100 * r["share_of_ceiling"] for r in report["results"]])
    axes.invert_yaxis()
    axes.set_xlabel("% of the measured copy or product rate")
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    """The command."""
    given = arguments()
    import torch

    if not torch.cuda.is_available():
        if not given.tiny:
            print("no GPU here: nothing was measured (--tiny tries the script in the interpreter)", file=sys.stderr)
            return 2
        os.environ["TRITON_INTERPRET"] = "1"
    from gpu_timing import ceilings
    from kernel_cases import Device, cases

    on_gpu = torch.cuda.is_available()
    device = Device("cuda" if on_gpu else "cpu", torch.bfloat16 if on_gpu else torch.float32, given.tiny)
    measured = ceilings()
    name = torch.cuda.get_device_name() if on_gpu else "interpreter: not figures"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "ceilings": asdict(measured)}
    if given.tune:
        report["tuned"] = tuned(device)
    else:
        report["results"] = [timed(case, measured) for case in cases(device, set(given.operation))]
        if given.plot:
            plot(report, given.plot)
    if given.json or given.tune:
        print(json.dumps(report))
    else:
        show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
