"""Whose product of few rows with packed weights is fastest here, and how exact is it?

``python benchmarks/packed_products.py --json``: the matrices of one decode step of SmolLM2-135M (q, k and v stacked, o,
gate and up stacked, down, thirty layers; the head), by our kernels, torch's and torchao's in turns. Medians of the
rounds, and the best of each. Weights and inputs are random; twelve layers have weights of their own, more than caches
hold, and count for thirty.

``error``: the largest difference from a float64 product with the same rounded weights, over its largest value.
``rounding``: what rounding changed of the weights, by their Frobenius norm. ``independent``: whether a row's result is
the same, bit for bit, alone and in every batch. ``recorded``: the step of ours as the server runs it, from a record of
its launches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packed_kernels import Kernel, Packed


_SLOW_SECONDS = 3.0
"""A kernel whose first step takes as long is out of the race, and that step its figure."""


_COPIES = 12


@dataclass(frozen=True)
class Shape:
    """Widths of a decoder."""

    hidden: int = 576
    key_values: int = 384
    intermediate: int = 1536
    layers: int = 30
    vocabulary: int = 49152

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Outputs and inputs of a layer's products and of the head."""
        return {
            "q, k, v": (self.hidden + self.key_values, self.hidden),
            "o": (self.hidden, self.hidden),
            "gate, up": (2 * self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
            "head": (self.vocabulary, self.hidden),
        }


TINY = Shape(64, 64, 96, 1, 128)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", default="ours,torch,torchao", help="comma-separated")
    parser.add_argument("--rows", default="1,4,16,32", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tiny", action="store_true", help="toy shapes, to try the script")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


class Step:
    """The products of one decode step by one kernel."""

    def __init__(self, kernel: Kernel, shape: Shape, rows: list[int]) -> None:
        import torch

        self.kernel = kernel
        self.quality: dict[str, float] = {}
        generator = torch.Generator().manual_seed(0)
        matrices = shape.matrices()
        copies = min(_COPIES, shape.layers)
        self._weight = shape.layers / copies
        order = [name for name in matrices if name != "head"] * copies + ["head"]
        self._products: list[tuple[str, int, Packed]] = []
        for number, name in enumerate(order):
            weight = torch.randn(matrices[name], generator=generator).mul_(0.02)
            packed = kernel.pack(weight)
            self._products.append((name, weight.shape[1], packed))
            if number < len(matrices) - 1 or name == "head":
                self._judge(packed, weight, rows)
        widths = {width for _, width, _ in self._products}
        self._inputs = {
            (count, width): torch.randn(count, width, generator=generator).to(kernel.dtype)
            for count in rows
            for width in sorted(widths)
        }
        parts = (self._products[:-1], self._products[-1:])
        self._records = (
            {count: [self._recorded(part, count) for part in parts] for count in rows} if kernel.records else {}
        )

    def _judge(self, packed: Packed, weight: Any, rows: list[int]) -> None:
        """Add one matrix to the worst of what is known of this kernel's results."""
        import torch

        inputs = torch.randn(max(rows), weight.shape[1], generator=torch.Generator().manual_seed(1))
        inputs = inputs.to(self.kernel.dtype)
        dense, result = packed.dense(), packed.multiply(inputs)
        expected = inputs.double() @ dense.t()
        same = all(torch.equal(packed.multiply(inputs[:count].clone())[0], result[0]) for count in [1, *rows])
        found = {
            "error": float((result.double() - expected).abs().max() / expected.abs().max()),
            "rounding": float((dense - weight.double()).norm() / weight.double().norm()),
            "dependent": float(not same),
        }
        self.quality = {name: max(value, self.quality.get(name, 0.0)) for name, value in found.items()}

    def _recorded(self, products: list[tuple[str, int, Packed]], rows: int) -> Any:
        from ift_kernels.cpu_simd.recorded import Arena, record

        return record(lambda: [p.multiply(self._inputs[rows, width]) for _, width, p in products], Arena())

    def seconds(self, rows: int) -> dict[str, float]:
        """Of each matrix over all layers, of the whole step, and of the step from its record."""
        found: dict[str, float] = defaultdict(float)
        before = time.perf_counter()
        for name, width, packed in self._products:
            packed.multiply(self._inputs[rows, width])
            now = time.perf_counter()
            found[name] += (now - before) * (1.0 if name == "head" else self._weight)
            before = now
        found["step"] = sum(found.values())
        if self._records:
            for weight, (_, run) in zip((self._weight, 1.0), self._records[rows], strict=True):
                begun = time.perf_counter()
                run()
                found["recorded"] += weight * (time.perf_counter() - begun)
        return found


def measure(shape: Shape, libraries: list[str], rows: list[int], rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of every kernel by rows and matrix, the kernels in turns, and how exact each is."""
    import torch
    from packed_kernels import chosen

    torch.set_num_threads(threads)
    with torch.inference_mode():
        kernels, missing = chosen(libraries)
        steps = [Step(kernel, shape, rows) for kernel in kernels]
        times: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        with contextlib.suppress(KeyboardInterrupt):  # what was measured by then is told
            for count in rows:
                left = {step.kernel.name: rounds for step in steps}
                for number in range(rounds + 1):
                    for step in steps:
                        name = step.kernel.name
                        if not left[name]:
                            continue
                        found = step.seconds(count)
                        if number == 0 and found["step"] < _SLOW_SECONDS:
                            continue
                        left[name] = 0 if number == 0 else left[name] - 1
                        for part, seconds in found.items():
                            times[name, count, part].append(1e3 * seconds)
                    print(f"{count} rows, round {number} of {rounds}", file=sys.stderr, flush=True)
    results: list[dict[str, Any]] = []
    for step in steps:
        kernel = step.kernel
        milliseconds: dict[str, dict[str, float]] = defaultdict(dict)
        best: dict[str, dict[str, float]] = defaultdict(dict)
        for (name, count, part), values in times.items():
            if name == kernel.name:
                milliseconds[str(count)][part] = round(statistics.median(values), 3)
                best[str(count)][part] = round(min(values), 3)
        quality = {
            "error": step.quality["error"], "rounding": step.quality["rounding"],
            "independent": not step.quality["dependent"],
        }  # fmt: skip
        own = {"kernel": kernel.name, "bits": kernel.bits, **quality}
        results.append(own | {"milliseconds": milliseconds, "best": best})
    return {
        "torch": torch.__version__, "threads": threads, "rounds": rounds, "shape": vars(shape),
        "instructions": torch.backends.cpu.get_cpu_capability(), "missing": missing, "results": results,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """Markdown: milliseconds of a step by rows, those of ours from a record where there is one."""
    rows = list(report["results"][0]["milliseconds"])
    head = ["kernel", "bits", *(f"{count} rows" for count in rows), "error", "rounding", "independent"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for found in report["results"]:
        parts = found["milliseconds"].values()
        times = [f"{p['recorded']:.1f} ({p['step']:.1f})" if "recorded" in p else f"{p['step']:.1f}" for p in parts]
        exact = [f"{found['error']:.1e}", f"{found['rounding']:.1e}", "yes" if found["independent"] else "no"]
        lines.append("| " + " | ".join([found["kernel"], str(found["bits"]), *times, *exact]) + " |")
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in report["missing"].items())])


def main() -> None:
    """Measure and print."""
    given = arguments()
    # As the engine's process has them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    rows = [int(count) for count in given.rows.split(",")]
    shape = TINY if given.tiny else Shape()
    report = measure(shape, given.libraries.split(","), rows, given.rounds, given.threads)
    print(json.dumps(report) if given.json else table(report))


if __name__ == "__main__":
    main()
