"""What does guessing tokens bring? Two servers of one model, with guesses and without, asked in turns in one run.

``python benchmarks/speculation.py --model DIRECTORY --json``: tokens a second of one caller and of several, on tasks
whose answers copy from their prompts (rewrite, extract, edit) and on others. Every answer must be the same from both.

With ``--one-process`` an engine in this process, on one thread, guesses in turns and not: tokens a second of computing,
which those who share the machine change little.
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

from ift_serve.client import AsyncClient, Generation

TEXTS = (
    "The town library opens at nine on weekdays and at ten on Saturdays. Members may borrow six books at a time and "
    "keep them for three weeks. Late books cost ten cents a day. Mrs Adler, who has run the desk for twelve years, "
    "asks that visitors leave their bags in the lockers by the door.",
    "On Tuesday the committee met to discuss the new bridge over the Weller. Mr Okafor said that the old one carries "
    "four thousand cars a day and was built for half as many. The engineers want steel; the council wants stone. A "
    "decision is due on the third of May, and the work would begin in September.",
    "To repot a fern, water it an hour before. Spread newspaper, loosen the root ball with a fork, and trim roots that "
    "are brown or soft. Put two fingers of gravel into the new pot, then fresh soil. Set the fern as deep as it stood "
    "before, press the soil down, and water it again. Keep it out of the sun for a week.",
    "def total(prices, discount):\n    amount = 0\n    for price in prices:\n        if price < 0:\n            raise "
    "ValueError(price)\n        amount = amount + price\n    amount = amount * (1 - discount)\n    return amount\n",
)
COPYING = (
    "Repeat the following text word for word, without any comment:\n\n{}",
    "Rewrite the following text and change nothing but the first word, which becomes 'Now':\n\n{}",
    "Write the following text again with every sentence on a line of its own:\n\n{}",
    "Copy the sentences of the following text that name a number or a day:\n\n{}",
)
OTHER = (
    "Write a short story about a lighthouse keeper who finds a letter.",
    "Explain to a child why the sky is blue.",
    "List ten things to take along on a hike in the mountains, with a reason for each.",
    "What is the difference between a virus and a bacterium?",
    "Write an email in which you ask your landlord to repair the heating.",
    "Give three arguments for and three against homework.",
    "Describe how bread is made, from the grain to the loaf.",
    "Invent a holiday and say how it is celebrated.",
)


@dataclass(frozen=True)
class Task:
    """One prompt of a kind. ``temperature``: 0 draws greedily."""

    kind: str
    text: str
    temperature: float


def tasks() -> list[Task]:
    """Half of the tasks of each kind greedy, half drawn."""
    copying = [form.format(text) for text in TEXTS for form in COPYING]
    kinds = [("copying", text) for text in copying] + [("other", text) for text in OTHER for _ in range(2)]
    return [Task(kind, text, 0.7 * ((place + place // 4) % 2)) for place, (kind, text) in enumerate(kinds)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a model; without it, the embedded one")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--weights", default="auto", help="auto, int8 or int4")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--new-tokens", type=int, default=96, help="of an answer, at most")
    parser.add_argument("--tasks", type=int, default=16, help="of each kind")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over them")
    parser.add_argument("--same", action="store_true", help="neither server guesses: how far two equal ones differ")
    parser.add_argument("--one-process", action="store_true", help="by computing time, greedy and drawn tasks apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON in one line")
    return parser.parse_args()


@dataclass
class Run:
    """What came of the tasks of one kind, once through."""

    seconds: float
    answers: list[Generation]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return sum(answer.usage.generated_tokens for answer in self.answers) / self.seconds

    def count(self, name: str) -> int:
        """The sum of a count of usage."""
        return sum(getattr(answer.usage, name) for answer in self.answers)

    @property
    def said(self) -> list[Any]:
        """What must not depend on guesses."""
        return [[(c.text, c.finish_reason) for c in answer.candidates] for answer in self.answers]


class Benchmark:
    """Asks two servers in turns."""

    def __init__(self, given: argparse.Namespace, guessing: AsyncClient, plain: AsyncClient) -> None:
        self._given = given
        self._servers = {"with": guessing, "without": plain}

    async def all(self) -> dict[str, Any]:
        """By callers and kind."""
        found: dict[str, Any] = {}
        for callers in self._given.callers:
            for kind in ("copying", "other"):
                own = [task for task in tasks() if task.kind == kind][: self._given.tasks]
                found.setdefault(f"{callers} callers", {})[kind] = await self._compare(own, callers)
        return found

    async def _compare(self, own: list[Task], callers: int) -> dict[str, Any]:
        runs: dict[str, list[Run]] = {name: [] for name in self._servers}
        for server in self._servers.values():
            await self._run(server, own[:callers], callers)
        for turn in range(self._given.rounds):
            for name in list(self._servers) if turn % 2 else reversed(list(self._servers)):
                runs[name].append(await self._run(self._servers[name], own, callers))
            if runs["with"][-1].said != runs["without"][-1].said:
                raise SystemExit("an answer depends on guesses")
        ratios = [a.rate / b.rate for a, b in zip(runs["with"], runs["without"], strict=True)]
        last = runs["with"][-1]
        found = {
            "tokens_per_second": {name: round(statistics.median(r.rate for r in own), 1) for name, own in runs.items()},
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "generated_tokens": last.count("generated_tokens"),
            "drafted_tokens": last.count("drafted_tokens"),
            "accepted_tokens": last.count("accepted_tokens"),
        }
        print(f"{callers} callers, {own[0].kind}: {found}", file=sys.stderr, flush=True)
        return found

    async def _run(self, server: AsyncClient, own: list[Task], callers: int) -> Run:
        gate = asyncio.Semaphore(callers)

        async def one(place: int, task: Task) -> Generation:
            async with gate:
                return await server.generate(
                    task.text,
                    max_new_tokens=self._given.new_tokens,
                    temperature=task.temperature,
                    seed=self._given.seed + place,
                )

        begun = time.perf_counter()
        answers = await asyncio.gather(*(one(place, task) for place, task in enumerate(own)))
        return Run(time.perf_counter() - begun, list(answers))


class OneProcess:
    """Two cores over one model, of which one guesses; used in turns. Their clock is this process's computing time."""

    def __init__(self, given: argparse.Namespace, model: Path) -> None:
        from ift_serve.decoding.context import StrategyContext
        from ift_serve.decoding.registry import strategies
        from ift_serve.engine.config import EngineConfig
        from ift_serve.engine.core.core import EngineCore
        from ift_serve.engine.drafting.draft_planner import LONGEST_DRAFT, DraftPlanner
        from ift_serve.engine.runner.model_runner import ModelRunner
        from ift_serve.engine.runner.step_timing import step_seconds
        from ift_serve.text.prompt import PromptRenderer

        config = EngineConfig(
            model=str(model),
            dtype=given.dtype,
            weights=given.weights,
            threads=1,
            total_blocks=512,
            prefix_caching=False,
        )
        runner = ModelRunner(config)
        self.step_seconds = step_seconds(runner, 1 + LONGEST_DRAFT, time.process_time)
        known = strategies(StrategyContext.of_model(config.model, runner.description.eos_ids))
        self._given = given
        self._renderer = PromptRenderer.from_pretrained(config.model)
        self._cores = {
            name: EngineCore(runner, config, known, time.process_time, drafts=drafts)
            for name, drafts in (("with", DraftPlanner(measured=self.step_seconds)), ("without", None))
        }

    def all(self) -> dict[str, Any]:
        """By kind and temperature."""
        found: dict[str, Any] = {"milliseconds_by_rows": [round(1e3 * seconds, 2) for seconds in self.step_seconds]}
        for kind in ("copying", "other"):
            for name, drawn in (("greedy", False), ("drawn", True)):
                own = [task for task in tasks() if task.kind == kind and (task.temperature > 0) == drawn]
                found[f"{kind}, {name}"] = self._compare(own[: self._given.tasks])
        return found

    def _compare(self, own: list[Task]) -> dict[str, Any]:
        seconds, counts = {"with": 0.0, "without": 0.0}, [0, 0, 0]
        for place, task in enumerate(own):
            said = {}
            for name in self._cores if place % 2 else reversed(self._cores):
                begun = time.process_time()
                said[name], usage = self._answer(name, place, task)
                seconds[name] += time.process_time() - begun
                if name == "with":
                    counts = [a + b for a, b in zip(counts, usage, strict=True)]
            if said["with"] != said["without"]:
                raise SystemExit("an answer depends on guesses")
        found = {
            "tokens_per_second": {name: round(counts[0] / took, 2) for name, took in seconds.items()},
            "ratio": round(seconds["without"] / seconds["with"], 3),
            **dict(zip(("generated_tokens", "drafted_tokens", "accepted_tokens"), counts, strict=True)),
        }
        print(f"{own[0].kind}, {own[0].temperature}: {found}", file=sys.stderr, flush=True)
        return found

    def _answer(self, name: str, place: int, task: Task) -> tuple[Any, list[int]]:
        from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest, SamplingParams

        core, prompt = self._cores[name], self._renderer.instruction(task.text)
        core.add(
            GenerateRequest(
                request_id=str(place),
                token_ids=prompt.token_ids,
                segment_ids=prompt.segment_ids,
                end_ids=[self._renderer.tokenizer.eos_token_id],
                sampling=SamplingParams(
                    temperature=task.temperature, seed=self._given.seed + place, max_new_tokens=self._given.new_tokens
                ),
            )
        )
        said: list[Any] = []
        usage = [0, 0, 0]
        while core.has_work():
            for output in core.step().outputs:
                assert isinstance(output, CandidateOutput), output
                said += zip(output.token_ids, output.statistics, strict=True)
                if output.usage is not None:
                    counted = output.usage
                    usage = [counted.drawn_tokens, counted.drafted_tokens, counted.accepted_tokens]
        return said, usage


async def compare(given: argparse.Namespace, addresses: list[str]) -> dict[str, Any]:
    """Connect to the server with guesses and the one without."""
    from ours import client

    async with client(addresses[0]) as guessing, client(addresses[1]) as plain:
        return await Benchmark(given, guessing, plain).all()


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(given).items() if name not in {"json", "model"}}


def main() -> None:
    """Measure and print."""
    given = arguments()
    from machine import measure
    from ours import server

    from ift_serve.embedded import model_path

    model = given.model or model_path()
    if given.one_process:
        report = {"model": model.name, "settings": _settings(given)} | OneProcess(given, model).all()
        print(json.dumps(report, indent=None if given.json else 1))
        return
    options = (
        "--dtype",
        given.dtype,
        "--weights",
        given.weights,
        "--threads",
        str(given.threads),
        "--metrics-port",
        "-1",
        "--no-prefix-caching",
    )
    guesses = "off" if given.same else "lookup"
    with server(model, *options, "--speculation", guesses) as (first, _), server(model, *options) as (second, _):
        found = asyncio.run(compare(given, [first, second]))
    report = {"model": model.name, "settings": _settings(given), "machine": asdict(measure(model, "float32"))} | found
    print(json.dumps(report, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
