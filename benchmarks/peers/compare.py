"""The same requests through this server and its peers, in turns: tokens a second by the number of callers.

``python benchmarks/peers/compare.py --model DIR --ours bf16= --ours int8="--weights int8" --transformers
--openvino int8=PYTHON,MODELDIR --llama q4_1=LLAMA_SERVER,FILE.gguf --concurrency 1,32 --json``

Each peer runs in a process of its own, OpenVINO under the interpreter that is named, so that no environment has to hold
them all. Requests are random token ids of the model's vocabulary, ends of answers ignored. Beside the rate by the clock
there is the processor time of the peer's processes, which others on the machine change less; a runtime whose threads
wait for one another in a loop pays for that wait.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.dont_write_bytecode = True


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of the model, for ours and for transformers")
    parser.add_argument("--ours", action="append", default=[], metavar="NAME=OPTIONS", help="options of serve")
    parser.add_argument("--gguf", metavar="FILE", help="this server on a GGUF file")
    parser.add_argument("--openvino", action="append", default=[], metavar="NAME=PYTHON,MODELDIR")
    parser.add_argument("--llama", action="append", default=[], metavar="NAME=LLAMA_SERVER,FILE")
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--concurrency", default="1,32")
    parser.add_argument("--requests", type=int, default=40, help="for one caller a tenth of them")
    parser.add_argument("--prompt", type=int, nargs=2, default=(16, 256), metavar=("MIN", "MAX"))
    parser.add_argument("--output", type=int, nargs=2, default=(16, 128), metavar=("MIN", "MAX"))
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="PNG of tokens a second by callers")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def _peers(given: argparse.Namespace) -> list[Any]:
    from peers.workers import LlamaServer, Ours, Worker, transformers_worker

    threads = ["--threads", str(given.threads)]
    found: list[Any] = []
    for option in given.ours:
        name, _, options = option.partition("=")
        found.append(Ours(f"ours {name}", given.model, [*options.split(), *threads]))
    if given.gguf:
        found.append(Ours(f"ours {Path(given.gguf).name}", given.gguf, threads))
    for option in given.openvino:
        name, _, rest = option.partition("=")
        python, model = rest.split(",")
        found.append(Worker(f"OpenVINO GenAI {name}", python, "openvino_worker.py", model, str(given.threads)))
    for number, option in enumerate(given.llama):
        name, _, rest = option.partition("=")
        binary, file = rest.split(",")
        found.append(LlamaServer(f"llama.cpp {name}", binary, file, given.threads, 18080 + number))
    if given.transformers:
        found.append(transformers_worker(given.model, given.threads))
    return found


def processor_seconds(pid: int) -> float:
    """Of a process, its children and those that have ended."""
    process = psutil.Process(pid)
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])
    return float(total)


def measure(given: argparse.Namespace, peers: list[Any]) -> dict[str, Any]:
    """Medians and rounds of every peer at every concurrency, the peers in turns."""
    from transformers import AutoConfig

    from ift_serve.cli.bench import plan

    vocabulary = int(AutoConfig.from_pretrained(given.model).vocab_size)
    many = plan(given.requests, tuple(given.prompt), tuple(given.output), vocabulary, 4096, given.seed)
    report: dict[str, Any] = {}
    for peer in peers:
        peer.run(many[:4], 4)
    for callers in map(int, given.concurrency.split(",")):
        requests = many if callers > 1 else many[: max(1, given.requests // 10)]
        rounds: dict[str, list[float]] = {peer.name: [] for peer in peers}
        processor: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(given.rounds):
            for peer in peers:
                before = processor_seconds(peer.pid)
                timing = peer.run(requests, callers)
                processor[peer.name].append(round(1e3 * (processor_seconds(peer.pid) - before) / timing.tokens, 2))
                expected = sum(r.new_tokens for r in requests)
                if timing.tokens != expected:
                    raise SystemExit(f"{peer.name} gave {timing.tokens} tokens of {expected}")
                rounds[peer.name].append(round(timing.rate, 2))
            print(callers, {name: values[-1] for name, values in rounds.items()}, file=sys.stderr, flush=True)
        medians = {name: round(statistics.median(values), 1) for name, values in rounds.items()}
        report[str(callers)] = {
            "tokens_per_second": medians, "rounds": rounds,
            "best": {name: max(values) for name, values in rounds.items()},
            "processor_ms_per_token": {name: statistics.median(values) for name, values in processor.items()},
        }  # fmt: skip
    return report


def plot(report: dict[str, Any], target: Path) -> None:
    """Tokens a second by the number of callers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    callers = list(map(int, report))
    figure, axes = pyplot.subplots(figsize=(8, 5))
    markers = "osv^D*Px"
    for number, name in enumerate(report[str(callers[0])]["tokens_per_second"]):
        rates = [report[str(each)]["tokens_per_second"][name] for each in callers]
        axes.plot(callers, rates, marker=markers[number % len(markers)], label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(callers, [str(each) for each in callers])
    axes.set_xlabel("callers")
    axes.set_ylabel("output tokens a second")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(target, dpi=120, bbox_inches="tight")


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    names = next(iter(report.values()))["tokens_per_second"]
    head = "| | " + " | ".join(f"{callers} callers" if callers != "1" else "one caller" for callers in report) + " |"
    rows = [
        f"| {name} | " + " | ".join(f"{part['tokens_per_second'][name]:g}" for part in report.values()) + " |"
        for name in names
    ]
    return "\n".join([head, "| --- " * (len(report) + 1) + "|", *rows])


def main() -> None:
    """Measure and print."""
    given = arguments()
    from machine import measure as measure_machine

    machine = measure_machine(Path(given.model), "float32")
    peers = _peers(given)
    try:
        report = measure(given, peers)
    finally:
        for peer in peers:
            peer.close()
    if given.plot:
        plot(report, given.plot)
    if not given.json:
        print(table(report))
        return
    print(json.dumps({"model": Path(given.model).name, "machine": vars(machine), "callers": report}, indent=1))


if __name__ == "__main__":
    main()
