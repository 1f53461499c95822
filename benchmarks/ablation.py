"""What does each instruction-aware component add to LoRA, and what does consolidation save?

``python benchmarks/ablation.py --json`` trains every variant on the same examples for the same number of steps with
three seeds, scores them by the checkers on the test split of families that the embedded model cannot do, and writes the
page that ``--output`` names (``docs/results.md``). Controls are LoRA alone at a rank that gives as many trained
parameters as the variant has.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FAMILIES = ["both_ends", "words_in_and_out", "list_shape", "combined"]
FIRST_TASK, SECOND_TASK = ["both_ends"], ["words_in_and_out"]
"""For consolidation: each is learned within its steps, and the second makes the model forget the first."""
FIRST_STEPS, SECOND_STEPS = 100, 250
PENALTIES = (0.0, 100.0, 200.0, 300.0)
ENCODER = 64
ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "segment embedding": {"segment_embedding": True},
    "instruction embedding": {"instruction_embedding": 8},
    "two-stream fusion": {"instruction_encoder": ENCODER, "two_stream": 48},
    "attention bias": {"instruction_encoder": ENCODER, "attention_bias": True},
    "attention gain": {"attention_gain": True},
    "instruction gate": {"instruction_encoder": ENCODER, "instruction_gate": 8},
    "reasoning pathways": {"reasoning_pathways": 96},
    "adherence head": {"instruction_encoder": ENCODER, "adherence_head": 64},
}
ALL: dict[str, Any] = {
    "segment_embedding": True,
    "instruction_embedding": 8,
    "instruction_encoder": ENCODER,
    "two_stream": 48,
    "attention_bias": True,
    "attention_gain": True,
    "instruction_gate": 8,
    "reasoning_pathways": 96,
    "adherence_head": 64,
}
RANK = 8
MARK = "\n<!-- Behind this line is what other benchmarks measured. -->\n"
"""In the page that ``--output`` names."""
_REPORT, _HELD_OUT = "report.json", "eval_loss_next_token"
_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % quantiles of Student's t for that many runs."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, 6))
    parser.add_argument("--examples", type=int, default=40, help="test requests of each family")
    parser.add_argument("--only", action="append", default=[], help="variants to run; default: all")
    parser.add_argument("--part", choices=("components", "ewc", "both"), default="both")
    parser.add_argument("--output", type=Path, help="write the page here, such as docs/results.md")
    parser.add_argument("--render", type=Path, action="append", help="make the page of earlier runs' JSON; run nothing")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def recipe(folder: Path, families: list[str], steps: int, seed: int, examples: int, **trainer: Any) -> Any:
    """Every variant's recipe but for what ``trainer`` changes."""
    from ift_training.recipe import Recipe

    given = {"lora": {"rank": RANK, "alpha": 2 * RANK}, "learning_rate": 2e-3, "batch_size": 16, **trainer}
    return Recipe.parse(
        {
            "base": "ift-tiny",
            "output": str(folder),
            "seed": seed,
            "max_length": 128,
            "sources": [{"procedural": families, "count": steps * 16}],
            "validation": {"sources": [{"procedural": [f], "split": "test", "count": examples} for f in FAMILIES]},
            "evaluation": {"every": steps, "examples": examples, "best": "last"},
            "trainer": {**given, "max_steps": steps, "warmup": 0.03},
        }
    )


def run(chosen: Any) -> dict[str, Any]:
    """Train and score: percent that pass by family, held-out loss a target token, how many parameters were trained."""
    from ift_training.prepare import RUN_FOLDER
    from ift_training.run import train

    begun = time.monotonic()
    report = train(chosen, progress=False)
    scores = {name: 100 * share for name, share in report.after.items()}
    history = json.loads((chosen.output / RUN_FOLDER / _REPORT).read_text(encoding="utf-8"))["history"]
    losses = [entry[_HELD_OUT] for entry in history if _HELD_OUT in entry]
    return {
        "scores": scores,
        "loss": losses[-1],
        "parameters": report.trained_parameters,
        "seconds": round(time.monotonic() - begun, 1),
    }


def mean_of(result: dict[str, Any], families: list[str]) -> float:
    """Percent over some families."""
    return statistics.mean(float(result["scores"][f]) for f in families)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and the half-width of its 95 % confidence interval."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.mean(values), _T_95.get(len(values), 2.0) * spread


def lora_parameters_a_rank() -> int:
    """Trained parameters of LoRA of rank 1 on every linear layer of the embedded model below its head."""
    from ift_serve.embedded import model_path
    from ift_serve.modeling.adapter_format.base import BaseMetadata

    metadata = BaseMetadata.of_directory(model_path())
    return sum(sum(metadata.shapes[f"{path}.weight"]) for path in metadata.linears if path != metadata.head_path)


def components(given: argparse.Namespace, folder: Path, say: Any) -> list[dict[str, Any]]:
    """LoRA alone, with each component, with all, and width-matched controls."""
    variants: dict[str, dict[str, Any]] = {"LoRA alone": {}}
    for name, found in ONE_BY_ONE.items():
        changes: dict[str, Any] = {"components": found}
        if "adherence_head" in found:
            changes["losses"] = {"instruction": 0.2}
        variants[f"+ {name}"] = changes
    variants["+ all"] = {"components": ALL, "losses": {"instruction": 0.2}}
    per_rank = lora_parameters_a_rank()
    rows: list[dict[str, Any]] = []

    def measure(name: str, changes: dict[str, Any]) -> dict[str, Any]:
        results = []
        for seed in range(given.seeds):
            path = folder / f"{len(rows)}-{seed}"
            results.append(run(recipe(path, FAMILIES, given.steps, seed, given.examples, **changes)))
        mean, half = interval([mean_of(r, FAMILIES) for r in results])
        loss, loss_half = interval([r["loss"] for r in results])
        row = {
            "variant": name,
            "mean": round(mean, 1),
            "half_width": round(half, 1),
            "loss": round(loss, 4),
            "loss_half_width": round(loss_half, 4),
            "families": {f: round(statistics.mean(r["scores"][f] for r in results), 1) for f in FAMILIES},
            "losses": [round(r["loss"], 4) for r in results],
            "parameters": results[0]["parameters"],
            "runs": [round(mean_of(r, FAMILIES), 1) for r in results],
            "seconds": statistics.median(r["seconds"] for r in results),
        }
        rows.append(row)
        say(
            f"{name}: {row['mean']} +- {row['half_width']} %, loss {row['loss']} +- {row['loss_half_width']} "
            f"({row['parameters']} parameters, {row['seconds']} s)"
        )
        return row

    controls: dict[int, str] = {}
    for name, changes in variants.items():
        if given.only and name not in given.only:
            continue
        row = measure(name, changes)
        rank = round(row["parameters"] / per_rank)
        if changes and rank > RANK:
            controls.setdefault(rank, name)
    for rank, name in controls.items():
        measure(f"LoRA alone, rank {rank} (as wide as {name})", {"lora": {"rank": rank, "alpha": 2 * rank}})
    return rows


def consolidation(given: argparse.Namespace, folder: Path, say: Any) -> list[dict[str, Any]]:
    """Task A, then task B with and without the penalty; what is left of A."""
    from ift_training.fisher import write_fisher

    first, second = FIRST_TASK, SECOND_TASK
    rows = []
    for seed in range(given.seeds):
        begin = folder / f"ewc-a-{seed}"
        before = recipe(begin, first, FIRST_STEPS, seed, given.examples)
        score_a = mean_of(run(before), first)
        fisher = folder / f"fisher-{seed}.safetensors"
        write_fisher(before, fisher, examples=400, progress=False)
        for weight in PENALTIES:
            losses = {"ewc": {"weight": weight, "fisher": str(fisher)}}
            after = recipe(
                folder / f"ewc-b-{seed}-{weight:g}", second, SECOND_STEPS, seed, given.examples, losses=losses
            )
            result = run(after)
            rows.append(
                {
                    "seed": seed,
                    "weight": weight,
                    "a_before": score_a,
                    "a_after": mean_of(result, first),
                    "b": mean_of(result, second),
                }
            )
            say(json.dumps(rows[-1]))
    return rows


def page(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    parts = [
        _components_page(report) if report.get("components") else "",
        _ewc_page(report) if report.get("ewc") else "",
    ]
    return "\n".join(part for part in parts if part)


def _plus_minus(values: list[float], digits: int) -> str:
    return "{:.{d}f} ± {:.{d}f}".format(*interval(values), d=digits)


def _components_page(report: dict[str, Any]) -> str:
    first, *_ = rows = report["components"]
    lines = [
        "# What the components add",
        "",
        f"Made by `python benchmarks/ablation.py`: {report['steps']} steps of 16 examples, {report['seeds']} seeds, "
        f"LoRA of rank {RANK} on every linear layer of `ift-tiny`, greedy answers to {report['examples']} test "
        f"requests of each of {len(FAMILIES)} families ({', '.join(FAMILIES)}), judged by the checkers. Mean share of "
        "answers that pass; mean loss of a target token of the same held-out examples (nats); and how far that is from "
        "LoRA alone with the same seed, since seeds differ in their data more than variants in their loss. ± is the "
        "95 % confidence interval over seeds.",
        "",
        f"| variant | trained parameters | passes, % | loss | against LoRA alone | {' | '.join(FAMILIES)} |",
        f"| --- | --- | --- | --- | --- |{' --- |' * len(FAMILIES)}",
    ]
    for row in rows:
        paired = [ours - alone for ours, alone in zip(row["losses"], first["losses"], strict=True)]
        cells = [
            row["variant"],
            f"{row['parameters']:,}",
            f"{row['mean']} ± {row['half_width']}",
            f"{row['loss']:.4f}",
            "" if row is first else _plus_minus(paired, 4),
            *(str(row["families"][f]) for f in FAMILIES),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ewc_page(report: dict[str, Any]) -> str:
    found = report["ewc"]
    lines = [
        "# What consolidation saves",
        "",
        f"{FIRST_STEPS} steps of task A ({', '.join(FIRST_TASK)}), then {SECOND_STEPS} of task B "
        f"({', '.join(SECOND_TASK)}) from where A ended, with the Fisher penalty of A at several weights. Means over "
        f"{report['seeds']} seeds with 95 % confidence intervals, per cent of answers that pass.",
        "",
        "| weight of the penalty | A before B | A after B | forgotten | B |",
        "| --- | --- | --- | --- | --- |",
    ]
    for weight in sorted({row["weight"] for row in found}):
        rows = [row for row in found if row["weight"] == weight]
        lost = [row["a_before"] - row["a_after"] for row in rows]
        columns = ([r["a_before"] for r in rows], [r["a_after"] for r in rows], lost, [r["b"] for r in rows])
        lines.append(f"| {weight:g} | {' | '.join(_plus_minus(values, 1) for values in columns)} |")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Replace what this script wrote before; what other benchmarks have behind the mark stays."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(text + before[before.find(MARK) :] if MARK in before else text, encoding="utf-8")


def main() -> int:
    """The command."""
    given = arguments()
    begun = time.monotonic()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if given.render:
        earlier: dict[str, Any] = {}
        for path in given.render:
            earlier |= json.loads(path.read_text(encoding="utf-8"))
        write(given.output, page(earlier))
        return 0
    report: dict[str, Any] = {"steps": given.steps, "seeds": given.seeds, "examples": given.examples}
    with tempfile.TemporaryDirectory() as folder:
        if given.part in ("components", "both"):
            report["components"] = components(given, Path(folder), say)
        if given.part in ("ewc", "both"):
            report["ewc"] = consolidation(given, Path(folder), say)
    report["minutes"] = round((time.monotonic() - begun) / 60, 1)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        write(given.output, page(report))
    print(json.dumps(report) if given.json else page(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
