"""How fast is the server, and how far from transformers and from the machine's limits?

``python benchmarks/serving.py --shape smollm2-135m --peer transformers-static,transformers-cb --json``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Read when torch loads, and worth several times for small operations on few cores: the peers get it as our engine does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

PARTS = ("machine", "throughput", "latency", "prefix", "wire")


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="directory of a model")
    what.add_argument("--shape", choices=SHAPES, help="random weights in this shape")
    parser.add_argument("--peer", default="", help="comma-separated: transformers-static, transformers-cb")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated: {', '.join(PARTS)}")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "bfloat16", "float32"), help="auto: as a server chooses here"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--prompt", type=int, nargs=2, default=(16, 256), metavar=("MIN", "MAX"))
    parser.add_argument("--output", type=int, nargs=2, default=(16, 128), metavar=("MIN", "MAX"))
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    given = parser.parse_args()
    given.parts = given.parts.split(",")
    given.peer = [name for name in given.peer.split(",") if name]
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is not one of {', '.join(PARTS)}")
    return given


class Benchmark:
    """The parts, each of which returns what goes into the report."""

    def __init__(self, given: argparse.Namespace, model: Path) -> None:
        import torch
        from machine import computed
        from peers import PEERS, load
        from transformers import AutoConfig

        from ift_serve.cli.bench import plan

        torch.set_num_threads(given.threads)
        if unknown := set(given.peer) - set(PEERS):
            raise SystemExit(f"--peer: {', '.join(sorted(unknown))} is not one of {', '.join(PEERS)}")
        self._given, self._model = given, model
        config = AutoConfig.from_pretrained(model)
        self._vocabulary, context = int(config.vocab_size), int(config.max_position_embeddings)
        self._requests = plan(
            given.requests, tuple(given.prompt), tuple(given.output), self._vocabulary, context, given.seed
        )
        loaded = load(model, computed(given.dtype)) if given.peer else None
        self._peers: dict[str, Any] = {name: PEERS[name](loaded) for name in given.peer}
        self._options = ("--dtype", given.dtype, "--threads", str(given.threads), "--metrics-port", "-1")

    def machine(self) -> dict[str, Any]:
        """Rates of the machine."""
        from machine import measure

        return asdict(measure(self._model, self._given.dtype))

    def throughput(self) -> dict[str, Any]:
        """Tokens per second of ours and of the peers, in turns, so that a slow minute of the machine hits all."""
        from ours import server, through_grpc

        rates: dict[str, list[float]] = {"ift-serve": [], **{name: [] for name in self._peers}}
        reports = []
        with server(self._model, *self._options, "--no-prefix-caching") as (address, _):
            through_grpc(address, self._requests[:8], 8)
            for _ in range(self._given.rounds):
                # Whole answers, as the peers give them.
                reports.append(through_grpc(address, self._requests, self._given.concurrency, whole=True))
                rates["ift-serve"].append(reports[-1].tokens_per_second)
                for name, peer in self._peers.items():
                    rates[name].append(round(peer.run(self._requests, self._given.concurrency).rate, 1))
                self._say("throughput", {name: values[-1] for name, values in rates.items()})
        return self._compared(rates, highest_is_best=True) | {"detail": asdict(reports[-1])}

    def latency(self) -> dict[str, Any]:
        """Milliseconds a token with one caller."""
        from ours import server, through_grpc

        from ift_serve.cli.bench import plan

        lone = plan(1, (64, 64), (64, 64), self._vocabulary, 4096, self._given.seed + 1)
        times: dict[str, list[float]] = {"ift-serve": [], **{name: [] for name in self._peers}}
        with server(self._model, *self._options, "--no-prefix-caching") as (address, _):
            through_grpc(address, lone, 1)
            for _ in range(self._given.rounds):
                report = through_grpc(address, lone, 1)
                generated = (1e3 * report.seconds - report.first_token_p50) / (lone[0].new_tokens - 1)
                times["ift-serve"].append(round(generated, 2))
                for name, peer in self._peers.items():
                    times[name].append(round(1e3 * peer.seconds_per_token(lone[0]), 2))
                self._say("latency", {name: values[-1] for name, values in times.items()})
        return self._compared(times, highest_is_best=False)

    def prefix(self) -> dict[str, Any]:
        """Time to the first token of 32 requests at once that share 256 tokens nobody has seen before."""
        from ours import server, through_grpc

        from ift_serve.cli.bench import Request, plan

        def together(number: int) -> list[Request]:
            seed = self._given.seed + 1000 * (number + 1)
            shared = plan(1, (256, 256), (8, 8), self._vocabulary, 4096, seed)[0].token_ids
            own = plan(32, (16, 16), (8, 8), self._vocabulary, 4096, seed + 1)
            return [Request(shared + r.token_ids, r.new_tokens) for r in own]

        times: dict[str, list[float]] = {"with": [], "without": []}
        with (
            server(self._model, *self._options) as (reusing, _),
            server(self._model, *self._options, "--no-prefix-caching") as (plain, _),
        ):
            for address in (reusing, plain):
                through_grpc(address, self._requests[:4], 4)
            for number in range(self._given.rounds):
                for name, address in (("with", reusing), ("without", plain)):
                    times[name].append(through_grpc(address, together(number), 32).first_token_p50)
                self._say("prefix", {name: values[-1] for name, values in times.items()})
        medians = {name: round(statistics.median(values), 1) for name, values in times.items()}
        return {"first_token_ms": medians, "share": round(medians["with"] / medians["without"], 3), "rounds": times}

    def wire(self) -> dict[str, Any]:
        """What gRPC and text cost: the same engine process with and without them."""
        from ours import WithoutWire, server, through_grpc

        from ift_serve.engine.config import EngineConfig

        config = EngineConfig(
            model=str(self._model), dtype=self._given.dtype, threads=self._given.threads, prefix_caching=False
        )
        rates: dict[str, list[float]] = {"grpc": [], "grpc_streams": [], "in_process": []}
        direct = WithoutWire(config)
        given = self._requests, self._given.concurrency
        with server(self._model, *self._options, "--no-prefix-caching") as (address, _):
            through_grpc(address, self._requests[:8], 8)
            for _ in range(self._given.rounds):
                rates["grpc"].append(through_grpc(address, *given, whole=True).tokens_per_second)
                rates["in_process"] += direct.rates(*given, 1)
                rates["grpc_streams"].append(through_grpc(address, *given).tokens_per_second)
                self._say("wire", {name: values[-1] for name, values in rates.items()})
        medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
        cost = {name: round(1 - medians[name] / medians["in_process"], 4) for name in ("grpc", "grpc_streams")}
        return {"tokens_per_second": medians, "cost": cost, "rounds": rates}

    def _compared(self, rounds: dict[str, list[float]], *, highest_is_best: bool) -> dict[str, Any]:
        """Medians, spreads, and ours as a multiple of each peer's."""
        medians = {name: round(statistics.median(values), 2) for name, values in rounds.items()}
        ratios = {name: round(medians["ift-serve"] / medians[name], 3) for name in self._peers}
        unit = "tokens_per_second" if highest_is_best else "milliseconds_per_token"
        return {unit: medians, "ours_over_peer": ratios, "rounds": rounds}

    def _say(self, part: str, values: dict[str, float]) -> None:
        """Progress for a person; standard output may be read by a program."""
        print(f"{part}: " + ", ".join(f"{k} {v:g}" for k, v in values.items()), file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    given = arguments()
    from models import build

    with tempfile.TemporaryDirectory(prefix="ift-bench-") as scratch:
        stored = "bfloat16" if given.dtype == "auto" else given.dtype
        model = given.model or build(given.shape, Path(scratch) / given.shape, stored)
        benchmark = Benchmark(given, model)
        parts: dict[str, Callable[[], dict[str, Any]]] = {name: getattr(benchmark, name) for name in given.parts}
        settings = {k: v for k, v in vars(given).items() if k not in {"json", "parts", "model"}}
        report = {"model": given.shape or model.name, "settings": settings} | {n: part() for n, part in parts.items()}
    print(json.dumps(report, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
