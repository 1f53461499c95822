"""What weights or a cache of fewer bits cost in quality: perplexity of a text, and hits of the likeliest token.

``python benchmarks/weights_quality.py MODEL TEXT --windows 60 --json``; ``--cache-dtypes auto,fp8`` compares caches
instead, by the reference implementation, which rounds as the kernels of a GPU do. TEXT is a text file, or JSONL whose
strings are joined. It is cut into windows of 256 tokens, each scored alone by the engine's runner, the same ones for
every choice.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

_WINDOW = 256


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--weights", default="auto,int8,int4", help="comma-separated; the first is compared with")
    parser.add_argument("--cache-dtypes", help="comma-separated; the first is compared with, and --weights is left out")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def read(path: Path) -> str:
    """The text; of JSONL all strings of each line."""
    if path.suffix != ".jsonl":
        return path.read_text(encoding="utf-8")
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return "\n\n".join("\n".join(value for value in line.values() if isinstance(value, str)) for line in lines)


def score(model: Path, name: str, options: dict[str, Any], windows: list[list[int]]) -> dict[str, Any]:
    """Log-probabilities of the windows' tokens, and ranks of the tokens that are there."""
    from ift_serve.engine.config import EngineConfig
    from ift_serve.engine.runner.model_runner import ModelRunner
    from ift_serve.engine.sequences.step import SequenceStep, StepBatch

    config = EngineConfig.model_validate({"model": str(model), **options, "total_blocks": 2 * _WINDOW // 16})
    runner = ModelRunner(config)
    table = list(range(_WINDOW // runner.block_size + 1))
    log_probs: list[float] = []
    best: list[bool] = []
    for number, window in enumerate(windows):
        step = SequenceStep(number, window[:-1], 0, table, b"", None, score_targets=window[1:])
        scored = runner.execute(StepBatch([step], [])).scored[0]
        assert scored is not None
        log_probs += scored.log_probs
        best += scored.greedy
        print(f"{name}: {number + 1} of {len(windows)}", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {"log_probs": log_probs, "best": best}


def compare(base: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Perplexity, by how much it is higher, with the interval of the mean difference, and greedy hits.

    The first interval takes each token for a trial of its own, ``by_window`` each window: tokens of a window share
    what rounding did to the same keys and values.
    """
    count = len(base["log_probs"])
    mean = -sum(other["log_probs"]) / count
    differences = [a - b for a, b in zip(base["log_probs"], other["log_probs"], strict=True)]
    change = sum(differences) / count
    scored = _WINDOW - 1
    windows = [sum(differences[start : start + scored]) / scored for start in range(0, count, scored)]
    return {
        "perplexity": round(math.exp(mean), 3),
        "higher_percent": round(100 * math.expm1(change), 2),
        **_interval("higher_percent", differences, change),
        **_interval("higher_percent_by_window", windows, change),
        "greedy_hits_percent": round(100 * sum(other["best"]) / count, 2),
    }


def _interval(name: str, differences: list[float], change: float) -> dict[str, float]:
    """95 % of a mean, in percent of perplexity; nothing of a single value."""
    count = len(differences)
    if count < 2:
        return {}
    deviation = math.sqrt(sum((d - change) ** 2 for d in differences) / (count - 1) / count)
    return {
        f"{name}_low": round(100 * math.expm1(change - 1.96 * deviation), 2),
        f"{name}_high": round(100 * math.expm1(change + 1.96 * deviation), 2),
    }


def main() -> None:
    """Measure and print."""
    given = arguments()
    from ift_serve.text.tokenizer import load_tokenizer

    ids = load_tokenizer(str(given.model))(read(given.text), add_special_tokens=False)["input_ids"]
    windows = [ids[start : start + _WINDOW] for start in range(0, given.windows * _WINDOW, _WINDOW)]
    windows = [window for window in windows if len(window) == _WINDOW]
    if given.cache_dtypes is None:
        choices: dict[str, dict[str, Any]] = {name: {"weights": name} for name in given.weights.split(",")}
    else:
        names = given.cache_dtypes.split(",")
        choices = {name: {"cache_dtype": name, "attention_backend": "reference"} for name in names}
    names = list(choices)
    scores = {name: score(given.model, name, choices[name], windows) for name in names}
    report = {name: compare(scores[names[0]], scores[name]) for name in names}
    tokens = len(windows) * (_WINDOW - 1)
    if given.json:
        print(
            json.dumps(
                {"model": given.model.name, "tokens": tokens, "cache" if given.cache_dtypes else "weights": report},
                indent=1,
            )
        )
        return
    print("| choice | perplexity | higher by | 95 % | greedy hits |\n| --- | --- | --- | --- | --- |")
    for name, row in report.items():
        print(
            f"| {name} | {row['perplexity']} | {row['higher_percent']} % | {row['higher_percent_low']} to "
            f"{row['higher_percent_high']} % | {row['greedy_hits_percent']} % |"
        )


if __name__ == "__main__":
    main()
