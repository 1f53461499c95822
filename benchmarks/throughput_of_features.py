"""What do the features of decoding cost while they are used? All variants in turns on one server, in one run.

``python benchmarks/throughput_of_features.py --shape smollm2-135m --json``: tokens a second at 32 callers, drawn
plainly, with per-token statistics and log-probabilities, with alternatives beside them, and in a form (a JSON schema);
then, with one caller on the idle server, a greedy answer against a branch of width 8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ift_serve.cli.bench import Request, plan
from ift_serve.client import AsyncClient, Branch, JsonSchema, Prompt, ServerError

FORM = JsonSchema({"type": "array", "minItems": 1000, "items": {"type": "string", "minLength": 4, "maxLength": 12}})
"""Longer than any answer here, so that every answer ends at its limit, as those without a form do."""
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"ignore_eos": True},
    "statistics": {"ignore_eos": True, "statistics": True},
    "statistics and 5 alternatives": {"ignore_eos": True, "statistics": True, "top_alternatives": 5},
    "form": {"output": FORM},
}
"""The arguments that a variant adds."""


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="directory of a model")
    what.add_argument("--shape", choices=SHAPES, help="random weights in this shape")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--new-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--width", type=int, default=8, help="of the branch")
    parser.add_argument("--rounds", type=int, default=5, help="medians are taken over them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON in one line")
    return parser.parse_args()


class Benchmark:
    """Asks one server."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given

    async def all(self, address: str) -> dict[str, Any]:
        """Both parts."""
        from ours import client

        async with client(address) as connected:
            info = await connected.model()
            length = (self._given.prompt, self._given.prompt)
            answer = (self._given.new_tokens, self._given.new_tokens)
            requests = plan(
                self._given.requests, length, answer, info.vocabulary_size, info.context_length, self._given.seed
            )
            variants, left_out = await self._possible(connected, requests[:1])
            return {
                "left_out": left_out,
                "throughput": await self._throughput(connected, requests, variants),
                "branch": await self._branch(connected, requests),
            }

    async def _possible(
        self, connected: AsyncClient, request: list[Request]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """The variants that the server takes, and why it refuses the others, as it does forms without llguidance."""
        possible, left_out = {}, {}
        for name, options in VARIANTS.items():
            try:
                await self._rate(connected, request, options)
                possible[name] = options
            except ServerError as refusal:
                left_out[name] = str(refusal)
        return possible, left_out

    async def _throughput(
        self, connected: AsyncClient, requests: list[Request], variants: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """Tokens per second; the order turns, so that no variant is always behind the same one."""
        for options in variants.values():
            await self._rate(connected, requests[: self._given.concurrency], options)
        rates: dict[str, list[float]] = {name: [] for name in variants}
        names = list(variants)
        for turn in range(self._given.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                rates[name].append(round(await self._rate(connected, requests, variants[name]), 1))
            _say("throughput", {name: values[-1] for name, values in rates.items()})
        medians = {name: statistics.median(values) for name, values in rates.items()}
        ratios = {
            name: [round(1 - own / plain, 4) for own, plain in zip(values, rates["plain"], strict=True)]
            for name, values in rates.items()
            if name != "plain"
        }
        return {
            "tokens_per_second": medians,
            "cost": {name: statistics.median(values) for name, values in ratios.items()},
            "cost_of_each_round": ratios,
            "microseconds_a_token_more": {
                name: round(1e6 / rate - 1e6 / medians["plain"], 1) for name, rate in medians.items() if name != "plain"
            },
            "rounds": rates,
        }

    async def _rate(self, connected: AsyncClient, requests: list[Request], options: dict[str, Any]) -> float:
        gate = asyncio.Semaphore(self._given.concurrency)

        async def one(index: int, request: Request) -> int:
            async with gate:
                answer = await connected.generate(
                    Prompt.from_tokens(request.token_ids),
                    max_new_tokens=request.new_tokens,
                    temperature=1.0,
                    seed=self._given.seed + index,
                    **options,
                )
                return answer.usage.generated_tokens

        begun = time.perf_counter()
        tokens = sum(await asyncio.gather(*(one(i, r) for i, r in enumerate(requests))))
        return tokens / (time.perf_counter() - begun)

    async def _branch(self, connected: AsyncClient, requests: list[Request]) -> dict[str, Any]:
        """Seconds of one greedy answer and of a branch of answers as long, on the same prompts in turns."""
        kinds = {"greedy": None, "branch": Branch(width=self._given.width)}
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        sequences = 0
        for turn in range(self._given.rounds + 1):
            request = requests[turn % len(requests)]
            for name, reasoning in kinds.items():
                begun = time.perf_counter()
                answer = await connected.generate(
                    Prompt.from_tokens(request.token_ids),
                    reasoning=reasoning,
                    max_new_tokens=request.new_tokens,
                    temperature=0.0,
                    ignore_eos=True,
                )
                seconds[name].append(round(time.perf_counter() - begun, 4))
                sequences = answer.usage.sequences
            _say("branch", {name: values[-1] for name, values in seconds.items()})
        rounds = {name: values[1:] for name, values in seconds.items()}
        ratios = [round(b / g, 3) for b, g in zip(rounds["branch"], rounds["greedy"], strict=True)]
        return {
            "width": self._given.width,
            "sequences": sequences,
            "seconds": {name: statistics.median(values) for name, values in rounds.items()},
            "branch_over_greedy": statistics.median(ratios),
            "rounds": rounds,
        }


def _say(part: str, values: dict[str, float]) -> None:
    print(f"{part}: " + ", ".join(f"{k} {v:g}" for k, v in values.items()), file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    given = arguments()
    from machine import measure
    from models import build
    from ours import server

    options = ("--dtype", given.dtype, "--threads", str(given.threads), "--metrics-port", "-1", "--no-prefix-caching")
    with tempfile.TemporaryDirectory(prefix="ift-bench-") as scratch:
        stored = "bfloat16" if given.dtype == "auto" else given.dtype
        model = given.model or build(given.shape, Path(scratch) / given.shape, stored)
        with server(model, *options) as (address, _):
            found = asyncio.run(Benchmark(given).all(address))
        machine = asdict(measure(model, given.dtype))
    settings = {k: v for k, v in vars(given).items() if k not in {"json", "model", "shape"}}
    report = {"model": given.shape or model.name, "settings": settings, "machine": machine} | found
    print(json.dumps(report, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
