"""IFEval as model cards give it: the mean of prompt and instruction level, strict, with its interval.

    ift-serve serve MODEL --dtype bfloat16
    ift-serve eval --tasks ifeval --data ifeval=ifeval_input_data.jsonl --report OUT
    python ifeval_figure.py OUT/report.json --published 29.9 --json

The interval is 95 % of a bootstrap of prompts, which are clusters of their instructions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--published", type=float, help="percent")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report: dict[str, Any] = json.loads(args.report.read_text())
    rows = [row for row in report["rows"] if row["verdicts"]]
    found = {column: figure([[v["passed"] for v in row["verdicts"][column]] for row in rows]) for column in COLUMNS}
    if not args.json:
        for column, own in found.items():
            print(f"{column}: {own['mean']:.1%} ({own['low']:.1%} to {own['high']:.1%})")
        return
    # Verdicts and counts only: prompts are the benchmark's.
    verdicts = {
        row["key"]: {
            "tokens": row["generated_tokens"], "cut": row["is_cut"],
            **{column: "".join("01"[v["passed"]] for v in row["verdicts"][column]) for column in COLUMNS},
        }
        for row in rows
    }  # fmt: skip
    kept = {name: report[name] for name in ("server", "settings", "run", "coverage", "created")}
    print(json.dumps({"published": args.published, "figures": found, **kept, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
