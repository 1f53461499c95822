"""What do records that a model made of a few seeds, each verified by a program, teach it that the seeds do not?

``python benchmarks/generated_data.py --json`` does all of it on the embedded model: serves it, writes the seeds (plain
requests of the training split with their checks), evolves them with `ift-serve data evolve` until there are enough
records whose answers pass their checks, trains one adapter on the seeds alone and one on seeds and new records (same
steps, same settings), loads both into the running server, and asks both the same requests of the families' test split,
none of which is among the seeds or the new records. Once for each of several seeds of everything random.

Families that ask for several things at once are told apart: the base passes none of their requests, and nothing that
can be sampled from it is an example of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from intervals import bootstrap, mcnemar

PLAIN = ("list_items", "sort", "extract", "reverse")
ASKED = {
    "plain": ("sort", "extract", "reverse"),
    "one_requirement": ("bullets", "json", "commas", "frame", "include_word", "avoid_word"),
    "plain_with_requirements": ("combined",),
}
"""Families of the requests that are asked, by what they are to the seeds: like them, of a form or with a word of which
no seed speaks, and like a seed with a form on top. Of `list_items` there are but 56 requests in any split."""
SEVERAL = ("both_ends", "list_shape", "short_sentence", "words_in_and_out")
_GROUPS = {**ASKED, "all_of_these": tuple(name for own in ASKED.values() for name in own), "several": SEVERAL}
_DRAWS = 20_000
Outcomes = dict[str, list[bool]]
"""Whether each request passed, by adapter, the base's under the empty name; the same requests for all."""
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


def test_requests(count: int, seed: int, taken: set[str]) -> list[Any]:
    """Requests of the test split, different ones and none ``taken``. Raises RuntimeError if a family has fewer."""
    from ift_training.data.procedural import draw, family

    found: dict[str, Any] = {}
    for name in (*_GROUPS["all_of_these"], *SEVERAL):
        rng = random.Random(f"test|{name}|{seed}")
        own: dict[str, Any] = {}
        for _ in range(_DRAWS):
            example = draw(family(name), "test", rng)
            if example.prompt not in taken:
                own.setdefault(example.prompt, example)
            if len(own) == count:
                break
        else:
            raise RuntimeError(f"the test split of {name} has {len(own)} requests, not {count}")
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
    """New records as a file; what the evolution cost."""
    import yaml

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


def asked(record: dict[str, Any]) -> str:
    """The prompt of a line of data."""
    context = record.get("context", "")
    return f"{record['instruction']}\n\n{context}" if context else str(record["instruction"])


def without(path: Path, prompts: set[str]) -> int:
    """Take out records that ask what will be tested; how many they were."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if asked(json.loads(line)) not in prompts]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return len(lines) - len(kept)


def requirements(store: Path) -> dict[str, dict[str, int]]:
    """By requirement that was put in: records kept and rejected, so what the model can be sampled for."""
    from ift_serve.checks.content import Content
    from ift_training.data.generation.store import RecordStore

    found: dict[str, dict[str, int]] = {name: {"kept": 0, "rejected": 0} for name in NEEDED}
    with RecordStore(store) as records:
        for record in records.records():
            if record.lineage.step != "seed" and record.status in ("kept", "rejected"):
                added = [check.type for check in record.checks if not isinstance(check, Content)][-1]
                found[added][record.status] += 1
    return found


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


def one(given: argparse.Namespace, folder: Path, seed: int) -> tuple[dict[str, Any], dict[str, Outcomes]]:
    """A whole run with one seed, and its outcomes by group."""
    root = folder / "adapters"
    root.mkdir(parents=True, exist_ok=True)
    seeds, new = folder / "seeds.jsonl", folder / "evolved.jsonl"
    rows = list(seed_records(given.plain, seed))
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    requests = test_requests(given.examples, seed, {asked(row) for row in rows})
    process, address = serve(root, folder / "server.log")
    begun = time.monotonic()
    try:
        made = evolve(address, folder, given, seed)
        evolved = time.monotonic()
        overlap = without(new, {request.prompt for request in requests})
        train(root / "seeds", [seeds], given.steps, seed)
        train(root / "evolved", [seeds, new], given.steps, seed)
        trained = time.monotonic()
        passed = asyncio.run(score(address, {"seeds": "seeds", "evolved": "evolved"}, requests))
    finally:
        process.terminate()
        process.wait()
    groups = {name: of_families(passed, requests, own) for name, own in _GROUPS.items()}
    report = {
        "seed": seed,
        "requests": len(requests),
        "new_records": sum(1 for _ in new.open(encoding="utf-8")),
        "asked_by_the_test_too": overlap,
        "evolution": {name: value for name, value in made.items() if name not in ("given_up", "output", "breadth")},
        "given_up": len(made["given_up"]),
        "requirements": requirements(folder / "evolved.sqlite"),
        "groups": {name: summary(found) for name, found in groups.items()},
        "families": {
            family: shares(of_families(passed, requests, (family,))) for own in _GROUPS.values() for family in own
        },
        "seconds": {
            "evolve": round(evolved - begun, 1),
            "train": round(trained - evolved, 1),
            "score": round(time.monotonic() - trained, 1),
        },
    }
    return report, groups


def of_families(passed: Outcomes, requests: list[Any], families: Sequence[str]) -> Outcomes:
    """The outcomes of some families' requests."""
    own = [place for place, request in enumerate(requests) if request.family in families]
    return {name: [found[place] for place in own] for name, found in passed.items()}


def shares(passed: Outcomes) -> dict[str, float]:
    """Percent that passed."""
    return {name or "base": round(100 * statistics.mean(found), 2) for name, found in passed.items()}


def summary(passed: Outcomes) -> dict[str, Any]:
    """Percent that passed, and what the new records bring beside the seeds alone and beside no training."""
    return {
        "passes": shares(passed),
        "over_seeds": paired(passed["seeds"], passed["evolved"]),
        "over_base": paired(passed[""], passed["evolved"]),
    }


def over_runs(runs: list[dict[str, Outcomes]], group: str) -> dict[str, Any]:
    """A group of all runs together, and the gain over the seeds alone as a mean of runs, 95 % by Student's t."""
    together = {name: [one for run in runs for one in run[group][name]] for name in runs[0][group]}
    gains = [100 * (statistics.mean(run[group]["evolved"]) - statistics.mean(run[group]["seeds"])) for run in runs]
    half = _T_95[len(gains)] * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
    return summary(together) | {"gains": gains, "gain": statistics.mean(gains), "gain_half_width": half}


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
    runs, outcomes = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(given.first, given.first + given.seeds):
            report, groups = one(given, (given.keep or Path(temporary)) / f"run-{seed}", seed)
            runs.append(report)
            outcomes.append(groups)
            print(json.dumps(report, indent=2), file=sys.stderr if given.json else sys.stdout, flush=True)
    together = {group: over_runs(outcomes, group) for group in _GROUPS}
    best = together["all_of_these"]
    result = {
        "settings": {name: str(value) for name, value in vars(given).items() if name not in ("json", "keep")},
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "groups": together,
        "runs": runs,
        "passed": all(run["new_records"] >= 0.9 * given.records for run in runs)
        and (best["gain_half_width"] is not None and best["gain"] > best["gain_half_width"]),
    }
    print(json.dumps(result, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
