"""What do the reasoning strategies bring over one greedy answer, and what do they cost?

``python benchmarks/reasoning.py --model DIRECTORY --json`` asks the same problems of every method through gRPC:
generated arithmetic and word problems (``--families``), or a GSM8K file (``--data``). An answer is right if its last
number is the problem's. Tokens are those of all sequences, hidden ones too. Every method runs by itself, without prefix
caching.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from intervals import bootstrap, mcnemar, wilson
from reasoning_methods import Method, Widths, methods
from reasoning_problems import Problem, from_file, generated

from ift_serve.client import AsyncClient

FAMILIES = ("arithmetic", "word_problem")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a model; default: the embedded one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--families", nargs="+", default=list(FAMILIES), help="procedural families, answers in numbers")
    what.add_argument("--data", type=Path, help="a GSM8K file, or the folder of its test.jsonl")
    parser.add_argument("--problems", type=int, default=100, help="of each family, or of the file")
    parser.add_argument("--suffix", default="", help="appended to every question, such as ' Think step by step.'")
    parser.add_argument("--branch", type=int, nargs="*", default=Widths.branch, metavar="K")
    parser.add_argument("--vote", type=int, nargs="*", default=Widths.vote, metavar="N")
    parser.add_argument("--best-of", type=int, nargs="*", default=Widths.best_of, metavar="N")
    parser.add_argument("--markers", nargs=2, metavar=("OPEN", "CLOSE"), help="of thoughts, if the model has none")
    parser.add_argument("--budget", type=int, default=256, help="tokens of a thought")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="of one answer")
    parser.add_argument("--temperature", type=float, default=0.7, help="of samples")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=120.0, help="no method begins later than this")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "bfloat16", "float32"), help="auto: as a server chooses here"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="a Markdown table instead of JSON")
    parser.add_argument("--json", action="store_true", help="JSON in one line")
    return parser.parse_args()


@dataclass(frozen=True)
class Outcome:
    """One problem answered by one method. Tokens are of all its sequences; seconds: what its caller waited."""

    solved: bool
    as_asked: bool
    drawn: int
    forced: int
    sent: int
    thought: int
    sequences: int
    seconds: float

    @property
    def tokens(self) -> int:
        """All that the model made or was given."""
        return self.drawn + self.forced


@dataclass(frozen=True)
class Run:
    """One method on all problems, in their order; seconds: from the first request to the last answer."""

    method: Method
    outcomes: list[Outcome]
    seconds: float


class Benchmark:
    """Asks the problems of one server."""

    def __init__(self, given: argparse.Namespace, problems: list[Problem]) -> None:
        self._given, self._problems = given, problems

    async def all(self, address: str) -> tuple[list[Run], dict[str, str]]:
        """A run a method, and what was left out with the reason."""
        from ours import client

        async with client(address) as connected:
            model_markers = (await connected.model()).thought_markers
            typed = tuple(self._given.markers) if self._given.markers else None
            listed = methods(
                Widths(tuple(self._given.branch), tuple(self._given.vote), tuple(self._given.best_of)),
                self._given.temperature,
                markers=typed,
                budget=self._given.budget,
                use_markers=bool(typed or model_markers),
            )
            left_out = (
                {} if typed or model_markers else {"trace": "the model has no markers of thoughts, none were given"}
            )
            await self._answer(connected, listed[0], 0)
            runs, end = list[Run](), time.monotonic() + 60 * self._given.minutes
            for method in listed:
                if time.monotonic() < end:
                    runs.append(await self._run(connected, method))
                else:
                    left_out[method.name] = f"the {self._given.minutes:g} minutes were over"
            return runs, left_out

    async def _run(self, connected: AsyncClient, method: Method) -> Run:
        gate = asyncio.Semaphore(self._given.concurrency)

        async def one(index: int) -> Outcome:
            async with gate:
                return await self._answer(connected, method, index)

        begun = time.perf_counter()
        outcomes = list(await asyncio.gather(*(one(i) for i in range(len(self._problems)))))
        run = Run(method, outcomes, time.perf_counter() - begun)
        solved, tokens = sum(o.solved for o in outcomes), sum(o.tokens for o in outcomes)
        print(
            f"{method.name}: {solved}/{len(outcomes)}, {tokens} tokens, {run.seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return run

    async def _answer(self, connected: AsyncClient, method: Method, index: int) -> Outcome:
        """The seed is the problem's, so that every method draws from the same streams."""
        problem = self._problems[index]
        begun = time.perf_counter()
        answer = await connected.generate(
            problem.question + self._given.suffix,
            reasoning=method.reasoning,
            temperature=method.temperature,
            max_new_tokens=self._given.max_new_tokens,
            seed=self._given.seed + index,
        )
        seconds = time.perf_counter() - begun
        self._check_applied(method, answer.applied_reasoning)
        usage = answer.usage
        return Outcome(
            problem.solved_by(answer.text),
            problem.as_asked(answer.text),
            usage.drawn_tokens,
            usage.forced_tokens,
            usage.generated_tokens,
            usage.reasoning_tokens,
            usage.sequences,
            seconds,
        )

    def _check_applied(self, method: Method, applied: Any) -> None:
        """A width or budget that the server lowered would be measured under the wrong name."""
        for field in ("samples", "width", "budget"):
            asked = getattr(method.reasoning, field, None)
            if asked is not None and getattr(applied.settings, field) != asked:
                raise SystemExit(f"{method.name}: the server applied {field} = {getattr(applied.settings, field)}")


def summary(runs: list[Run], problems: list[Problem]) -> list[dict[str, Any]]:
    """A line a method: shares with intervals, means a problem, and the comparisons."""
    by_name = {run.method.name: run for run in runs}
    lines = []
    for run in runs:
        own = run.outcomes
        solved = sum(o.solved for o in own)
        lines.append(
            {
                "method": run.method.name,
                "solved": solved,
                "problems": len(own),
                "accuracy": _share(solved, len(own)),
                "interval": [round(100 * v, 1) for v in wilson(solved, len(own))],
                "families": {
                    name: _share(sum(o.solved for o in chosen), len(chosen))
                    for name, chosen in _by_family(own, problems).items()
                },
                "as_asked": _share(sum(o.as_asked for o in own), len(own)),
                "drawn_tokens": round(statistics.fmean(o.drawn for o in own), 1),
                "forced_tokens": round(statistics.fmean(o.forced for o in own), 1),
                "sent_tokens": round(statistics.fmean(o.sent for o in own), 1),
                "thought_tokens": round(statistics.fmean(o.thought for o in own), 1),
                "sequences": round(statistics.fmean(o.sequences for o in own), 2),
                "seconds": round(run.seconds, 2),
                "median_latency": round(statistics.median(o.seconds for o in own), 3),
                "against": {name: compared(by_name[name], run) for name in run.method.against},
                "outcomes": "".join("1" if o.solved else "0" for o in own),
            }
        )
    return lines


def compared(base: Run, run: Run) -> dict[str, Any]:
    """How a method differs from another on the same problems: points of accuracy, share of tokens and of wall time."""
    before, after = [o.solved for o in base.outcomes], [o.solved for o in run.outcomes]
    low, high = bootstrap([float(v) for v in before], [float(v) for v in after])
    return {
        "points": round(100 * (sum(after) - sum(before)) / len(after), 1),
        "interval": [round(100 * low, 1), round(100 * high, 1)],
        "p": float(f"{mcnemar(before, after):.2g}"),
        "tokens": round(sum(o.tokens for o in run.outcomes) / sum(o.tokens for o in base.outcomes), 3),
        "time": round(run.seconds / base.seconds, 3),
    }


def _share(passed: int, total: int) -> float:
    return round(100 * passed / total, 1)


def _by_family(outcomes: list[Outcome], problems: list[Problem]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome, problem in zip(outcomes, problems, strict=True):
        found.setdefault(problem.family, []).append(outcome)
    return found


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""
    families = list(lines[0]["families"])
    heads = ["method", "right, %", *families, "against", "points", "p", "tokens", "of them", "seconds", "of them"]
    rows = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for line in lines:
        name, versus = next(reversed(line["against"].items()), ("", None))
        ends = "{} to {}"
        shares = [str(line["families"][f]) for f in families]
        points = f"{versus['points']:+} ({ends.format(*versus['interval'])})" if versus else ""
        cells = [line["method"], f"{line['accuracy']} ({ends.format(*line['interval'])})", *shares, name, points]
        cells += [str(versus["p"]) if versus else "", f"{line['drawn_tokens'] + line['forced_tokens']:.0f}"]
        cells += [f"{versus['tokens']:.2f}x" if versus else "", f"{line['seconds']:.1f}"]
        cells += [f"{versus['time']:.2f}x" if versus else ""]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    given = arguments()
    from machine import measure
    from ours import server

    from ift_serve.cli.base_model import base_of

    model = given.model or base_of("ift-tiny")
    if given.data is not None:
        path = given.data / "test.jsonl" if given.data.is_dir() else given.data
        if not path.is_file():
            print(json.dumps({"skipped": f"{path} is not there: no problems to ask"}))
            return
        problems = from_file(path, given.problems, given.seed)
    else:
        problems = generated(given.families, given.problems, given.seed)
    widest = max([2, *given.branch, *given.vote, *given.best_of])
    options = ("--dtype", given.dtype, "--threads", str(given.threads), "--metrics-port", "-1", "--no-prefix-caching")
    with server(model, *options, "--max-width", str(widest)) as (address, _):
        runs, left_out = asyncio.run(Benchmark(given, problems).all(address))
    lines = summary(runs, problems)
    settings = {k: v for k, v in vars(given).items() if k not in {"model", "data", "json", "table"}}
    settings["data"] = None if given.data is None else given.data.name
    report = {"model": model.name, "settings": settings, "machine": asdict(measure(model, given.dtype))}
    report |= {"left_out": left_out, "methods": lines}
    print(table(lines) if given.table else json.dumps(report, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
