"""Does the server stay right and lean for hours? Mixed traffic, cancels, deadlines, bad requests, engine kills.

``python benchmarks/soak.py --minutes 10 --json``. Every answer is compared with the one the same request got alone.
``--adapters 8`` has adapters replaced all the time. The report says what the memory of engine and front was made of
meanwhile, by the system, the allocator, Python and torch; ``soak_plot.py`` draws it. Exit code 0 only if no answer was
lost or wrong and nothing leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models import SHAPES, build
from ours import client, running
from resources import Held, engine_of, held
from soak_adapters import AdapterTraffic, write_versions
from traffic import BAD, Answer, Case, cases, with_stop

from ift_serve.client import AsyncClient, ServerError

KILL_SECONDS = 2.0
"""Calls in flight must be told within this time that the engine died."""
_WARM_SHARE = 0.2
_FRONT_GROWTH_MIB = 48.0
_ENGINE_GROWTH_MIB = 96.0
_DESCRIPTOR_GROWTH = 8


class Soak:
    """One run: its counts, and what went wrong."""

    def __init__(
        self, client: AsyncClient, front: int, given: argparse.Namespace, versions: dict[str, list[str]]
    ) -> None:
        self._client, self._front, self._given = client, front, given
        self._adapters = AdapterTraffic(client, versions, given.seed) if versions else None
        self._known: list[tuple[Case, Answer]] = []
        self._killed: list[float] = []
        self._ready: list[float] = []
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.kills: list[dict[str, float]] = []
        self.told: list[float] = []

    async def learn(self, vocabulary: int) -> None:
        """Ask everything alone, twice: the second time from a cache that knows the prompt."""
        rng = random.Random(self._given.seed)
        for number, case in enumerate(cases(self._given.cases, vocabulary, self._given.seed)):
            if not case.continuations and number % 4 == 3:
                case = await with_stop(case, self._client, rng)
            first, second = await case.ask(self._client), await case.ask(self._client)
            if first != second:
                self.problems.append(f"case {number} differs between two solo runs")
            self._known.append((case, first))
        if self._adapters is not None:
            await self._adapters.learn([case for case, _ in self._known])

    async def run(self) -> dict[str, Any]:
        """Traffic for the time given, then silence and the accounts."""
        begun = time.monotonic()
        end = begun + 60 * self._given.minutes
        callers = [asyncio.create_task(self._caller(n, end)) for n in range(self._given.concurrency)]
        samples: list[tuple[float, Held]] = []
        watch = asyncio.create_task(self._watch(begun, end, samples))
        kills = asyncio.create_task(self._kill(begun, end))
        reloads = [self._adapters.reload(end, self._given.reload_seconds)] if self._adapters is not None else []
        await asyncio.gather(watch, kills, *callers, *reloads)
        load = await self._settle()
        samples.append((time.monotonic() - begun, await asyncio.to_thread(held, self._front)))
        self._check_growth(samples, end - begun)
        return {
            "seconds": round(time.monotonic() - begun, 1),
            "counts": dict(sorted(self.counts.items())),
            "adapter_loads": 0 if self._adapters is None else self._adapters.loads,
            "kills": self.kills,
            "told_seconds_max": round(max(self.told, default=0.0), 3),
            "idle_load": load,
            "held": [{"at": round(at, 1)} | asdict(h) for at, h in samples[:: max(1, len(samples) // 20)]],
            "problem_count": len(self.problems),
            "problem_kinds": dict(Counter(p.split(":")[0].split(" ")[0] for p in self.problems)),
            "problems": self.problems[:50],
            "passed": not self.problems,
        }

    async def _caller(self, number: int, end: float) -> None:
        rng = random.Random(self._given.seed * 1000 + number)
        ways = [self._whole, self._whole, self._streamed, self._streamed, self._left, self._late, self._bad]
        ways += [self._adapted] * 4 if self._adapters is not None else []
        while time.monotonic() < end:
            await asyncio.sleep(self._given.pause)
            begun = time.monotonic()
            try:
                await rng.choice(ways)(rng)
            except ServerError as error:
                self._refused(error, begun)
            except Exception as error:
                self.problems.append(f"the client raised {error!r}")

    def _refused(self, error: ServerError, begun: float) -> None:
        """A call that failed: only one that was in flight when an engine was killed may, and it must be quick."""
        now = time.monotonic()
        struck = [k for k in self._killed if begun <= k + KILL_SECONDS and k <= now]
        if error.code == "UNAVAILABLE" and struck:
            self.counts["unavailable_by_kill"] += 1
            self.told.append(now - max(begun, struck[-1]))
            if self.told[-1] > KILL_SECONDS:
                self.problems.append(f"told {self.told[-1]:.2f} s after the engine was killed")
            return
        self.problems.append(f"lost: {error}")

    async def _whole(self, rng: random.Random, *, stream: bool = False) -> None:
        case, answer = rng.choice(self._known)
        got = await case.ask(self._client, stream=stream)
        kind = "scored" if case.continuations else "streamed" if stream else "generated"
        self.counts[kind] += 1
        if got != answer:
            self.problems.append(f"wrong: {kind} {case.sampling}: {got} instead of {answer}"[:600])

    async def _streamed(self, rng: random.Random) -> None:
        await self._whole(rng, stream=True)

    async def _adapted(self, rng: random.Random) -> None:
        assert self._adapters is not None
        problem = await self._adapters.ask(rng)
        self.counts["adapted"] += 1
        self.problems += [problem] if problem else []

    def _generation(self, rng: random.Random) -> tuple[Case, Answer]:
        while True:
            case, answer = rng.choice(self._known)
            if not case.continuations:
                return case, answer

    async def _left(self, rng: random.Random) -> None:
        """Leave a stream in the middle: what had come must begin the answer."""
        case, answer = self._generation(rng)
        said = await case.leave_early(self._client, rng.randint(1, 12))
        self.counts["left_early"] += 1
        if any(tuple(s) != whole[: len(s)] for s, whole in zip(said, answer.tokens, strict=True)):
            self.problems.append(f"wrong: a stream left early said {said} of {answer.tokens}"[:600])

    async def _late(self, rng: random.Random) -> None:
        """Too little time: the call ends as such, or with what there was time for, or after all in time."""
        from ift_serve.client import Prompt

        case, answer = self._generation(rng)
        try:
            whole = await self._client.generate(
                Prompt.from_tokens(case.prompt), tokens=True, timeout=rng.uniform(0.002, 0.1), **case.sampling
            )
        except ServerError as error:
            if error.code != "DEADLINE_EXCEEDED":
                raise
            self.counts["deadline"] += 1
            return
        self.counts["deadline_in_time"] += 1
        for candidate, tokens in zip(whole.candidates, answer.tokens, strict=True):
            if tuple(t.token_id for t in candidate.tokens) != tokens[: len(candidate.tokens)]:
                self.problems.append("wrong: an answer cut by its deadline does not begin the whole one")

    async def _bad(self, rng: random.Random) -> None:
        prompt, sampling = rng.choice(BAD)
        try:
            await self._client.generate(prompt, **sampling)
            self.problems.append(f"accepted: {sampling or len(prompt.token_ids)}")
        except ServerError as error:
            if error.code == "UNAVAILABLE":
                raise
            self.counts["bad_refused"] += 1
            if error.code != "INVALID_ARGUMENT" or not error.violations:
                self.problems.append(f"refused without naming the field: {error}")

    async def _kill(self, begun: float, end: float) -> None:
        """Kill -9 the engine at even distances, and see how soon it answers again."""
        import psutil

        for number in range(self._given.kills):
            at = begun + (number + 1) * (end - begun) / (self._given.kills + 1)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            engine = await asyncio.to_thread(engine_of, self._front)
            if engine is None:
                self.problems.append("there was no engine to kill")
                continue
            self._killed.append(time.monotonic())
            try:
                engine.kill()
            except psutil.NoSuchProcess:
                self.problems.append("the engine ended by itself")
            case, answer = self._generation(random.Random(number))
            while True:
                try:
                    recovered = await case.ask(self._client) == answer
                    break
                except ServerError as error:
                    self._refused(error, self._killed[-1])
                    await asyncio.sleep(error.retry_after or 0.1)
            self.kills.append({"at": round(at - begun, 1), "recovered": round(time.monotonic() - self._killed[-1], 2)})
            if not recovered:
                self.problems.append("wrong: the first answer after a kill")

    async def _watch(self, begun: float, end: float, samples: list[tuple[float, Held]]) -> None:
        interval = max(1.0, (end - begun) / 60)
        while time.monotonic() + interval < end:
            await asyncio.sleep(interval)
            samples.append((time.monotonic() - begun, await asyncio.to_thread(held, self._front)))
            done = sum(self.counts.values())
            print(f"{samples[-1][0]:.0f} s: {done} calls, {len(self.problems)} problems", file=sys.stderr, flush=True)

    async def _settle(self) -> dict[str, int]:
        """With nobody calling, everything must be free within seconds."""
        deadline = time.monotonic() + 10
        while True:
            load = (await self._client.model()).load
            if not load["waiting"] and not load["running"] and load["free_blocks"] == load["total_blocks"]:
                return load
            if time.monotonic() > deadline:
                self.problems.append(f"leak: blocks or requests are left when nobody calls: {load}")
                return load
            await asyncio.sleep(0.1)

    def _check_growth(self, samples: list[tuple[float, Held]], seconds: float) -> None:
        """The end against the state after warming up; the engine's memory only since it last started."""
        warm = next((h for at, h in samples if at >= _WARM_SHARE * seconds and h.engine_mib), samples[0][1])
        last = samples[-1][1]
        if last.front_mib - warm.front_mib > _FRONT_GROWTH_MIB:
            self.problems.append(f"leak: the front grew from {warm.front_mib} to {last.front_mib} MiB")
        if last.descriptors - warm.descriptors > _DESCRIPTOR_GROWTH:
            self.problems.append(f"leak: descriptors grew from {warm.descriptors} to {last.descriptors}")
        if last.children != warm.children:
            self.problems.append(f"leak: {last.children} child processes instead of {warm.children}")
        if last.engine_mib - warm.engine_mib > _ENGINE_GROWTH_MIB:
            self.problems.append(f"leak: the engine grew from {warm.engine_mib} to {last.engine_mib} MiB")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a model; else random weights in --shape")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--cases", type=int, default=60, help="distinct requests whose solo answers are learnt first")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--cache-mib", type=int, default=2, help="small, so that requests preempt one another")
    parser.add_argument("--adapters", type=int, default=0, help="names whose two versions replace one another")
    parser.add_argument("--reload-seconds", type=float, default=2.0, help="between two such replacements")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a caller waits between calls")
    parser.add_argument("--memory-seconds", type=float, default=10.0, help="between two looks into the memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


async def soak(address: str, front: int, given: argparse.Namespace, versions: dict[str, list[str]]) -> dict[str, Any]:
    """Learn, then run."""
    async with client(address) as connected:
        run = Soak(connected, front, given, versions)
        await run.learn((await connected.model()).vocabulary_size)
        return await run.run()


def main() -> int:
    """Run and print; 1 if anything was wrong."""
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="ift-soak-") as scratch:
        folder = Path(scratch)
        model = given.model or build(given.shape, folder / given.shape, "float32")
        (folder / "adapters").mkdir()
        versions = write_versions(folder / "adapters", model, given.adapters) if given.adapters else {}
        engine = {"model": str(model), "dtype": "float32", "cache_bytes": given.cache_mib * 2**20}
        fields = json.dumps({"engine": engine, "adapter_roots": [str(folder / "adapters")]})
        command = [sys.executable, str(Path(__file__).with_name("soak_server.py")), fields]
        memory, front_memory = folder / "engine.jsonl", folder / "front.jsonl"
        watched = {
            "IFT_SOAK_MEMORY": str(memory),
            "IFT_SOAK_FRONT": str(front_memory),
            "IFT_SOAK_SECONDS": str(given.memory_seconds),
        }
        with running(command, environment=watched) as (address, front):
            report = asyncio.run(soak(address, front, given, versions))
        report["engine_memory"] = [json.loads(line) for line in memory.read_text().splitlines()]
        report["front_memory"] = [json.loads(line) for line in front_memory.read_text().splitlines()]
    print(json.dumps(report, indent=None if given.json else 2))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
