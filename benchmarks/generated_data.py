"""What do records that a model made of a few seeds, each verified by a program, teach it that the seeds do not?

``python benchmarks/generated_data.py --json`` does all of it on the embedded model: serves it, writes the seeds (plain
requests of the training split with their checks), evolves them with `ift-serve data evolve` until there are enough
records whose answers pass their checks, trains one adapter on the seeds alone and one on seeds and new records (same
steps, same settings), loads both into the running server, and asks both the same requests of the test split. Once for
each of several seeds of everything random; prompts of the test split are never trained on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from intervals import bootstrap, mcnemar

PLAIN = ("list_items", "sort", "extract", "reverse")
HELD_OUT = ("combined", "both_ends", "list_shape", "short_sentence", "words_in_and_out")
"""Families of the requests that are asked: several requirements at once, which no seed has."""
NEEDED = ("begin", "end", "include", "avoid", "bullets", "json", "commas", "upper", "max_words")
_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
_CLI = [sys.executable, "-c", "from ift_serve.cli import main; main()"]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 6), help="runs, each with a seed of its own")
    parser.add_argument("--first", type=int, default=0, help="the first run's seed")
    parser.add_argument("--plain", type=int, default=30, help="seed records of each kind")
    parser.add_argument("--records", type=int, default=500, help="new records")
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    parser.add_argument("--examples", type=int, default=40, help="test requests of each family")
    parser.add_argument(
        "--keep", type=Path, help="directory for stores and adapters, which a second run goes on with; none: temporary"
    )
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def seed_records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Plain requests of the training split with their answers and checks."""
    from ift_training.data.lines import line_of
    from ift_training.data.procedural import draw, family
    from ift_training.data.procedural.stories import sentence
    from ift_training.data.procedural.vocabulary import NAMES, NOUNS
    from ift_training.data.records import Record

    rng = random.Random(f"seeds|{seed}")
    for name in PLAIN:
        for _ in range(count):
            yield line_of(Record.of_example(draw(family(name), "train", rng)))
    for begin in ("Write about", "Write a sentence about"):
        for who in rng.sample(NAMES, count):
            answer = sentence(rng, who, rng.choice(NOUNS))
            check = {"type": "include", "word": who}
            yield {"instruction": f"{begin} {who}.", "output": answer, "checks": [check]}


def test_requests(count: int, seed: int) -> list[Any]:
    """Requests of the test split, different ones."""
    from ift_training.data.procedural import draw, family

    found: dict[str, Any] = {}
    for name in HELD_OUT:
        rng = random.Random(f"test|{name}|{seed}")
        own: dict[str, Any] = {}
        while len(own) < count:
            example = draw(family(name), "test", rng)
            own.setdefault(example.prompt, example)
        found |= own
    return list(found.values())


def serve(root: Path, log: Path) -> tuple[subprocess.Popen[str], str]:
    """A server of the embedded model that loads adapters below ``root``; and its address."""
    command = [*_CLI, "serve", "--port", "0", "--metrics-port", "0", "--adapter-root", str(root)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if "ready on" not in line:
        raise RuntimeError(f"the server did not start: {log.read_text()}")
    return process, line.split("ready on ")[1].split(",")[0]


def command(*given: str) -> dict[str, Any]:
    """What a command of `ift-serve` printed as JSON."""
    done = subprocess.run([*_CLI, *given, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ift-serve {' '.join(given)}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def evolve(address: str, folder: Path, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Seeds and new records as files; what the evolution cost."""
    import yaml

    rows = [json.dumps(row) for row in seed_records(given.plain, seed)]
    (folder / "seeds.jsonl").write_text("\n".join(rows) + "\n")
    recipe = {
        "seeds": "seeds.jsonl",
        "store": str(folder / "evolved.sqlite"),
        "output": str(folder / "evolved.jsonl"),
        "seed": seed,
        "wanted": given.records,
        "rounds": 200,
        "retries": 5,
        # Children of one record beside each other, and requirements on top of requirements.
        "operations": {"variation": 2.0, "verifiable": 1.0},
        "verifiable": {"checks": list(NEEDED), "samples": 4, "variations": 3},
        "answerer": {"decoding": {"temperature": 0.8, "max_new_tokens": 64}},
    }
    (folder / "evolve.yaml").write_text(yaml.safe_dump(recipe))
    return command("data", "evolve", str(folder / "evolve.yaml"), "--server", address)


def without(path: Path, prompts: set[str]) -> int:
    """Take out records that ask what will be tested; how many they were."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = []
    for line in lines:
        record = json.loads(line)
        context = record.get("context", "")
        if (f"{record['instruction']}\n\n{context}" if context else record["instruction"]) not in prompts:
            kept.append(line)
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return len(lines) - len(kept)


def train(output: Path, files: list[Path], steps: int, seed: int) -> None:
    """An adapter of some files, by the same settings whatever they are; one that an earlier run ended is kept."""
    import yaml

    if (output / "ift_config.json").exists():
        return

    recipe = {
        "base": "ift-tiny",
        "output": str(output),
        "name": output.name,
        "seed": seed,
        "max_length": 160,
        "sources": [{"file": str(path.absolute())} for path in files],
        "validation": {"share": 0.02},
        "evaluation": {"every": 0, "examples": 4, "best": "last"},
        "trainer": {
            "lora": {"rank": 16, "alpha": 32},
            "learning_rate": 2e-3,
            "batch_size": 16,
            "max_steps": steps,
            "warmup": 0.03,
            "schedule": "cosine",
        },
    }
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe))
    command("train", str(path))


async def score(address: str, names: dict[str, str], requests: list[Any]) -> dict[str, list[bool]]:
    """Load adapters into the running server, and judge greedy answers of each of them and of the base."""
    from ift_serve.cli.demo_loop import ask_and_judge
    from ift_serve.client import AsyncClient

    async with AsyncClient(address) as client:
        for name, path in names.items():
            await client.load_adapter(name, path)
        return {name: await ask_and_judge(client, requests, name, lambda: None) for name in ("", *names)}


def one(given: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """A whole run with one seed."""
    root = folder / "adapters"
    root.mkdir(parents=True, exist_ok=True)
    requests = test_requests(given.examples, seed)
    process, address = serve(root, folder / "server.log")
    begun = time.monotonic()
    try:
        made = evolve(address, folder, given, seed)
        evolved = time.monotonic()
        overlap = without(folder / "evolved.jsonl", {request.prompt for request in requests})
        seeds, new = folder / "seeds.jsonl", folder / "evolved.jsonl"
        train(root / "seeds", [seeds], given.steps, seed)
        train(root / "evolved", [seeds, new], given.steps, seed)
        trained = time.monotonic()
        passed = asyncio.run(score(address, {"seeds": "seeds", "evolved": "evolved"}, requests))
    finally:
        process.terminate()
        process.wait()
    return {
        "seed": seed,
        "requests": len(requests),
        "new_records": sum(1 for _ in new.open(encoding="utf-8")),
        "asked_by_the_test_too": overlap,
        "evolution": made,
        "passes": {name or "base": 100 * statistics.mean(found) for name, found in passed.items()},
        "families": {family: shares(passed, requests, family) for family in HELD_OUT},
        "paired": paired(passed["seeds"], passed["evolved"]),
        "seconds": {
            "evolve": round(evolved - begun, 1),
            "train": round(trained - evolved, 1),
            "score": round(time.monotonic() - trained, 1),
        },
    }


def shares(passed: dict[str, list[bool]], requests: list[Any], family: str) -> dict[str, float]:
    """Percent of a family's requests that pass."""
    own = [place for place, request in enumerate(requests) if request.family == family]
    return {name or "base": 100 * statistics.mean(found[place] for place in own) for name, found in passed.items()}


def paired(first: list[bool], second: list[bool]) -> dict[str, Any]:
    """The second over the first on the same requests: points, 95 % of a bootstrap, McNemar's exact p."""
    low, high = bootstrap([100.0 * passed for passed in first], [100.0 * passed for passed in second])
    pairs = list(zip(first, second, strict=True))
    return {
        "points": 100 * statistics.mean(b - a for a, b in pairs),
        "low": low,
        "high": high,
        "gained": sum(b and not a for a, b in pairs),
        "lost": sum(a and not b for a, b in pairs),
        "p": mcnemar(first, second),
    }


def main() -> None:
    """Run all seeds and print the result."""
    given = arguments()
    # A run that is ended takes its server along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(given.first, given.first + given.seeds):
            folder = (given.keep or Path(temporary)) / f"run-{seed}"
            runs.append(one(given, folder, seed))
            if not given.json:
                print(json.dumps(runs[-1], indent=2), flush=True)
    gains = [run["passes"]["evolved"] - run["passes"]["seeds"] for run in runs]
    half = _T_95[len(gains)] * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
    report = {
        "settings": {name: str(value) for name, value in vars(given).items() if name not in ("json", "keep")},
        "runs": runs,
        "mean": {name: statistics.mean(run["passes"][name] for run in runs) for name in ("base", "seeds", "evolved")},
        "gain": statistics.mean(gains),
        "gain_half_width": half,
        "passed": all(run["new_records"] >= 0.9 * given.records for run in runs) and statistics.mean(gains) > 0,
    }
    print(json.dumps(report, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
