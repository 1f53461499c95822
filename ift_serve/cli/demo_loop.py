"""The whole loop on the embedded model: score, train an adapter, load it into the running server, score again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ift_serve.client import AsyncClient
    from ift_training.data.procedural import Example

RECIPE = "ift-tiny-constraints.yaml"
NAME = "constraints"
_CONCURRENCY = 32
_LONGEST_ANSWER = 96
_SEED = 20_26


@dataclass(slots=True)
class Loop:
    """What the loop found. ``passed[adapter][i]`` belongs to ``examples[i]``; times in seconds."""

    examples: list[Example]
    passed: dict[str, list[bool]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    served_while_loading: int = 0
    version: str = ""

    def families(self) -> list[str]:
        """In the order of the examples."""
        return list(dict.fromkeys(e.family for e in self.examples))

    def share(self, adapter: str, family: str = "") -> float:
        """Percent that passed."""
        from ift_serve.checks import pass_rates

        found = [(family, p) for e, p in self._outcomes(adapter) if family in ("", e.family)]
        return 100 * pass_rates(found).mean

    def mean(self, adapter: str) -> float:
        """Every family counts the same."""
        from ift_serve.checks import pass_rates

        return 100 * pass_rates((e.family, p) for e, p in self._outcomes(adapter)).mean

    def _outcomes(self, adapter: str) -> Iterator[tuple[Example, bool]]:
        return zip(self.examples, self.passed[adapter], strict=True)

    def turned(self, family: str = "") -> tuple[int, int]:
        """Requests that only the adapter answered right, and that only the base did."""
        pairs = [
            (b, a)
            for e, b, a in zip(self.examples, self.passed[""], self.passed[NAME], strict=True)
            if family in ("", e.family)
        ]
        return sum(a and not b for b, a in pairs), sum(b and not a for b, a in pairs)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "families": {
                f: {
                    "base": self.share("", f),
                    "adapter": self.share(NAME, f),
                    "gained": self.turned(f)[0],
                    "lost": self.turned(f)[1],
                }
                for f in self.families()
            },
            "base": self.mean(""),
            "adapter": self.mean(NAME),
            "gain": self.mean(NAME) - self.mean(""),
            "seconds": self.seconds,
            "served_while_loading": self.served_while_loading,
            "version": self.version,
        }


def constraint_examples(count: int) -> list[Example]:
    """``count`` requests of the test split of each family that tests constraints, always the same."""
    from ift_training.data.procedural import draw, families

    found = []
    for name, family in families().items():
        if family.is_constraint:
            rng = random.Random(f"{name}|{_SEED}")
            found += [draw(family, "test", rng) for _ in range(count)]
    return found


async def ask_and_judge(
    client: AsyncClient, examples: Sequence[Example], adapter: str, tick: Callable[[], None]
) -> list[bool]:
    """Whether the greedy answer to each request passes its checks."""
    import asyncio

    from ift_serve.checks import judge_all
    from ift_serve.client import Prompt

    gate = asyncio.Semaphore(_CONCURRENCY)

    async def one(example: Example) -> bool:
        async with gate:
            prompt = Prompt(instruction=example.instruction, context=example.context)
            answer = await client.generate(prompt, adapter=adapter, temperature=0.0, max_new_tokens=_LONGEST_ANSWER)
        tick()
        return bool(judge_all(example.checks, answer.text))

    return list(await asyncio.gather(*(one(e) for e in examples)))


def train(output: Path, *, quiet: bool) -> None:
    """Run the recipe that comes with the package, as a person would. Raises RuntimeError when it fails."""
    recipe = resources.files("ift_training") / "recipes" / RECIPE
    with resources.as_file(recipe) as path:
        command = [
            sys.executable,
            "-c",
            "from ift_serve.cli import main; main()",
            "train",
            str(path),
            "--set",
            f"output={output}",
            *(["--json"] if quiet else []),
        ]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL if quiet else None)
    if done.returncode != 0:
        raise RuntimeError(f"the training ended with code {done.returncode}; its messages are above")


async def load_beside_requests(client: AsyncClient, loop: Loop, path: str) -> None:
    """Load the adapter while callers go on asking the base model; none of them may notice."""
    import asyncio

    from ift_serve.client import Prompt

    loaded = asyncio.Event()

    async def caller(example: Example) -> int:
        count = 0
        while not loaded.is_set() or not count:
            prompt = Prompt(instruction=example.instruction, context=example.context)
            await client.generate(prompt, temperature=0.0, max_new_tokens=16)
            count += 1
        return count

    callers = [asyncio.create_task(caller(e)) for e in loop.examples[:8]]
    await asyncio.sleep(0)
    begun = time.perf_counter()
    adapter = await client.load_adapter(NAME, path)
    loop.seconds["load"] = time.perf_counter() - begun
    loaded.set()
    loop.version = adapter.version
    loop.served_while_loading = sum(await asyncio.gather(*callers))
