"""IFEval as model cards give it: the mean of prompt and instruction level, strict, with its interval.

    ift-serve serve MODEL --dtype bfloat16
    ift-serve eval --tasks ifeval --data ifeval=ifeval_input_data.jsonl --report OUT
    python ifeval_figure.py OUT/report.json --published 29.9 --json

The interval is 95 % of a bootstrap of prompts, which are clusters of their instructions.

``--beside OTHER/report.json`` compares with a second run on the prompts that both were asked: its figures minus
the first's, prompts drawn in pairs. Either may be several reports of parts of the file, separated by commas, or
what ``--json`` printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS, SEED = 10_000, 0
COLUMNS = ("published strict", "published loose", "repaired strict", "repaired loose")


def figure(passes: list[list[bool]]) -> dict[str, float]:
    """Shares of prompts and of instructions, and their mean. ``passes``: verdicts of each prompt."""
    kept = np.array([sum(own) for own in passes], dtype=np.float64)
    asked = np.array([len(own) for own in passes], dtype=np.float64)
    whole = (kept == asked).astype(np.float64)
    drawn = np.random.default_rng(SEED).integers(0, len(passes), size=(DRAWS, len(passes)))
    means = (whole[drawn].mean(axis=1) + kept[drawn].sum(axis=1) / asked[drawn].sum(axis=1)) / 2
    prompt, instruction = float(whole.mean()), float(kept.sum() / asked.sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "prompt_level": prompt, "instruction_level": instruction, "mean": (prompt + instruction) / 2,
        "low": float(low), "high": float(high),
    }  # fmt: skip


def _levels(passes: list[list[bool]], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[draws, 3]``: prompt level, instruction level and their mean, of each drawing of prompts."""
    kept = np.array([sum(own) for own in passes], dtype=np.float64)
    asked = np.array([len(own) for own in passes], dtype=np.float64)
    prompt = (kept == asked).astype(np.float64)[drawn].mean(axis=1)
    instruction = kept[drawn].sum(axis=1) / asked[drawn].sum(axis=1)
    return np.stack([prompt, instruction, (prompt + instruction) / 2], axis=1)


def difference(first: list[list[bool]], second: list[list[bool]]) -> dict[str, Any]:
    """The second's levels minus the first's on the same prompts, with intervals; prompts that it gained and lost."""
    everyone = np.arange(len(first))[None]
    drawn = np.random.default_rng(SEED).integers(0, len(first), size=(DRAWS, len(first)))
    before, after = _levels(first, everyone)[0], _levels(second, everyone)[0]
    low, high = np.quantile(_levels(second, drawn) - _levels(first, drawn), [0.025, 0.975], axis=0)
    whole = [(all(a), all(b)) for a, b in zip(first, second, strict=True)]
    found: dict[str, Any] = {
        "prompts": len(first), "gained": whole.count((False, True)), "lost": whole.count((True, False)),
    }  # fmt: skip
    for number, level in enumerate(("prompt_level", "instruction_level", "mean")):
        found[level] = {
            "first": float(before[number]), "difference": float(after[number] - before[number]),
            "low": float(low[number]), "high": float(high[number]),
        }  # fmt: skip
    return found


def verdicts(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each prompt: tokens, whether it was cut, a digit an instruction in each column; no text."""
    if "verdicts" in report:
        return dict(report["verdicts"])
    return {
        row["key"]: {
            "tokens": row["generated_tokens"], "cut": row["is_cut"],
            **{column: "".join("01"[v["passed"]] for v in row["verdicts"][column]) for column in COLUMNS},
        }
        for row in report["rows"]
        if row["verdicts"]
    }  # fmt: skip


def passes(own: dict[str, dict[str, Any]], keys: list[str], column: str) -> list[list[bool]]:
    """What :func:`figure` takes, in the order of ``keys``."""
    return [[digit == "1" for digit in own[key][column]] for key in keys]


def read(paths: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Verdicts of all the files, and what the first says of its run."""
    reports = [json.loads(Path(path).read_text()) for path in paths.split(",")]
    names = ("server", "settings", "run", "coverage", "created")
    about = {name: reports[0][name] for name in names if name in reports[0]}
    if any(report.get(name) != about[name] for report in reports for name in ("server", "settings")):
        raise SystemExit("the reports differ in their server or settings")
    if len(reports) > 1:
        about = {name: about[name] for name in ("server", "settings")} | {"runs": [r["run"] for r in reports]}
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        found |= verdicts(report)
    return found, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", help="report.json of a run; several parts separated by commas")
    parser.add_argument("--beside", help="the same of a second run, which is compared with the first")
    parser.add_argument("--published", type=float, help="percent")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    own, about = read(args.report)
    if args.beside:
        other, about_other = read(args.beside)
        keys = [key for key in own if key in other]
        if not keys:
            raise SystemExit("no prompt is in both runs")
        compared = {c: difference(passes(own, keys, c), passes(other, keys, c)) for c in COLUMNS}
        if not args.json:
            for column, found in compared.items():
                changed = f"gained {found['gained']}, lost {found['lost']} of {found['prompts']} prompts"
                print(f"{column}: {_told(found['mean'])}, {changed}")
            return
        pairs = {
            key: [{n: run[key][n] for n in ("tokens", "published strict")} for run in (own, other)] for key in keys
        }
        print(json.dumps({"differences": compared, "first": about, "second": about_other, "verdicts": pairs}))
        return
    found = {column: figure(passes(own, list(own), column)) for column in COLUMNS}
    if not args.json:
        for column, values in found.items():
            print(f"{column}: {values['mean']:.1%} ({values['low']:.1%} to {values['high']:.1%})")
        return
    print(json.dumps({"published": args.published, "figures": found, **about, "verdicts": own}))


def _told(level: dict[str, float]) -> str:
    first, changed = 100 * level["first"], 100 * level["difference"]
    return f"{first:.1f} % and {changed:+.1f} points ({100 * level['low']:+.1f} to {100 * level['high']:+.1f})"


if __name__ == "__main__":
    main()
