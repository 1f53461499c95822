"""What the sampling stage costs on a CPU: statistics, draws of every kind, and temperatures, in turns.

``python benchmarks/sampling.py --shape smollm2-135m --json``. First the kernels on random logits: batches of a kind of
row, and of plain rows with one of that kind among them. Then whole decode steps with and without temperature heads, and
what chooses the temperatures by itself. Medians of microseconds over the rounds. The statistics read the logits once,
and so does each drawn row: ``floor`` is the time of one read of all at the rate at which this machine reads memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

PROMPT = 200
Work = Callable[[], object]


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--width", type=int, default=64, help="of the temperature heads")
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def in_turns(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median microseconds of each, one of each a round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begun)
    return {name: round(1e6 * statistics.median(found), 1) for name, found in seconds.items()}


def kernels(rows: int, vocabulary: int, dtype: str) -> dict[str, Work]:
    """Statistics, and draws of every kind from known statistics."""
    import torch

    from ift_kernels.row_statistics import row_statistics
    from ift_kernels.sample_rows import TokenMasks, Truncations, sample_rows
    from ift_kernels.sample_rows.types import RowParameters, greedy_parameters

    logits = (torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * 3).to(getattr(torch, dtype))
    known, words = row_statistics(logits), -(-vocabulary // 32)

    def draw(special: int, **changes: Any) -> Work:
        """``special`` rows of the kind, the others plain."""
        parameters: RowParameters = greedy_parameters(rows)
        parameters.temperature = torch.full((rows,), 0.8 if changes.pop("drawn", True) else 0.0)
        parameters.seeds = torch.arange(rows)
        chosen = torch.arange(rows) < special
        off = torch.zeros(rows)
        if (top_p := changes.get("top_p")) is not None:
            parameters.top_p = torch.where(chosen, top_p, 1.0)
        shape = [torch.where(chosen, changes.get(name, 0.0), off) for name in ("top_n_sigma", "p_less", "top_h")]
        if any(part.any() for part in shape):
            parameters.truncations = Truncations(shape[0], shape[1], shape[2] if shape[2].any() else None)
        if (near := changes.get("near")) is not None:
            parameters.near = torch.where(chosen, near, -1.0)
        if (bits := changes.get("mask")) is not None:
            of_row = torch.where(chosen, 0, -1).int()
            parameters.masks = TokenMasks(torch.full((1, words), bits, dtype=torch.int32), of_row)
        if changes.get("in_one"):
            return lambda: sample_rows(logits, parameters)
        if changes.get("processed"):
            parameters.processed = torch.ones(rows, dtype=torch.int32)
        return lambda: sample_rows(logits, parameters, statistics=known)

    kinds: dict[str, dict[str, Any]] = {
        "top-p": {"top_p": 0.9},
        "top-n-sigma": {"top_n_sigma": 1.0},
        "p-less": {"p_less": 1.0},
        "top-H": {"top_h": 0.4},
        "adaptive-p": {"near": 0.5},
        "mask": {"mask": 0x01010101},
    }
    works: dict[str, Work] = {
        "statistics": lambda: row_statistics(logits),
        "greedy": draw(0, drawn=False),
        "plain": draw(0),
        "statistics and plain in one": draw(0, in_one=True),
        "plain, processed log-probabilities": draw(0, processed=True),
    }
    works |= {name: draw(rows, **changes) for name, changes in kinds.items()}
    return works | {f"plain and one {name}": draw(1, **changes) for name, changes in kinds.items()}


def steps(model: Path, given: argparse.Namespace) -> dict[str, Work]:
    """Decode steps of all rows, plain, by entropy and with heads, and what chooses the temperatures alone."""
    import torch

    from ift_kernels.row_statistics import row_statistics
    from ift_serve.engine.config import EngineConfig
    from ift_serve.engine.protocol.generate import SamplingParams
    from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TemperatureRule
    from ift_serve.engine.runner.model_runner import ModelRunner
    from ift_serve.engine.sampling.temperatures import Rows, Temperatures
    from ift_serve.engine.sequences.step import SamplingRow, SequenceStep, StepBatch

    blocks = -(-(PROMPT + 1) // 16)
    config = EngineConfig(
        model=str(model), max_sequences=given.rows, total_blocks=blocks * given.rows, threads=given.threads
    )
    runner = ModelRunner(config)
    place_heads(runner, given)

    def batch(adaptive: AdaptiveTemperature | None, adapters: int) -> StepBatch:
        params = SamplingParams(temperature=0.8, adaptive=adaptive)
        sequences = []
        for row in range(given.rows):
            table = list(range(row * blocks, (row + 1) * blocks))
            sampling = SamplingRow(params, row, 0, 0.8, [row] * PROMPT, PROMPT)
            adapter = 1 + row % adapters if adapters else 0
            sequences.append(SequenceStep(row, [row + 9], PROMPT, table, sampling=sampling, adapter=adapter))
        return StepBatch(sequences, [])

    head, rule = AdaptiveTemperature(), AdaptiveTemperature(rule=TemperatureRule.ENTROPY)
    plain, adapted = batch(None, 0), batch(None, given.adapters)
    by_entropy, with_heads = batch(rule, 0), batch(head, given.adapters)
    dtype = getattr(torch, given.dtype)
    hidden = torch.randn(given.rows, runner.description.hidden_size).to(dtype)
    known = row_statistics(torch.randn(given.rows, runner.description.vocabulary_size))
    temperatures = Temperatures(runner.adapters.temperatures)
    rows: dict[str, Rows] = {"heads": list(with_heads.sequences), "entropy": list(by_entropy.sequences)}
    return {
        "step, plain": lambda: runner.execute(plain),
        "step, adapters, heads not asked": lambda: runner.execute(adapted),
        "step, adapters, heads": lambda: runner.execute(with_heads),
        "step, by entropy": lambda: runner.execute(by_entropy),
        "temperatures of heads alone": lambda: temperatures(known, hidden, rows["heads"]),
        "temperatures by entropy alone": lambda: temperatures(known, hidden, rows["entropy"]),
    }


def place_heads(runner: Any, given: argparse.Namespace) -> None:
    """Adapters of a random temperature head each, in slots 1, 2, ..."""
    import torch
    from models import SHAPES

    from ift_serve.modeling.adapter_format.weights import AdapterWeights
    from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
    from ift_serve.modeling.components.instruction_components import InstructionComponents

    shape = SHAPES[given.shape]
    base = BaseShape(hidden_size=shape.hidden, layers=shape.layers, heads=shape.heads, vocabulary_size=shape.vocabulary)
    config = ComponentsConfig(temperature_head=given.width)
    for slot in range(1, given.adapters + 1):
        torch.manual_seed(slot)
        components = InstructionComponents(config, base)
        extras = {name: torch.randn_like(tensor) * 0.05 for name, tensor in components.state_dict().items()}
        read = runner.adapters.take(AdapterWeights(f"{slot:016x}", 0, {}, {}, {}, config, extras))
        runner.adapters.keep(str(slot), read.tensors)
        runner.adapters.place(str(slot), slot)


def main() -> int:
    """The script."""
    given = arguments()
    import torch
    from machine import measure
    from models import SHAPES, build

    torch.set_num_threads(given.threads)
    vocabulary = SHAPES[given.shape].vocabulary
    with tempfile.TemporaryDirectory() as folder:
        model = build(given.shape, Path(folder), given.dtype)
        machine = measure(model, given.dtype)
        drawn = in_turns(kernels(given.rows, vocabulary, given.dtype), given.rounds)
        stepped = in_turns(steps(model, given), given.rounds)
    read = given.rows * vocabulary * getattr(torch, given.dtype).itemsize
    report = {
        "shape": given.shape,
        "rows": given.rows,
        "threads": given.threads,
        "dtype": given.dtype,
        "floor": round(read / machine.memory_gb_per_second / 1e3, 1),
        "kernels": drawn,
        "steps": stepped,
        "share_of_heads": round(stepped["temperatures of heads alone"] / stepped["step, plain"], 5),
    }
    if given.json:
        print(json.dumps(report))
        return 0
    for name, value in {**drawn, **stepped}.items():
        print(f"{name:36} {value:10.1f} us")
    print(
        f"one read of the logits at memory's rate {report['floor']} us; heads {report['share_of_heads']:.2%} of a step"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
