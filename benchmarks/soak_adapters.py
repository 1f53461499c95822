"""Adapters in a soak: each name has two versions that replace one another while callers ask for it."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from adapters import write_adapter
from traffic import Answer, Case

from ift_serve.client import AsyncClient

_CASES = 6


def write_versions(folder: Path, model: Path, count: int) -> dict[str, list[str]]:
    """Two directories a name, of various ranks, half of them with components; by name, their paths in ``folder``."""
    from ift_serve.modeling.adapter_format.base import BaseMetadata
    from ift_serve.modeling.components.config import ComponentsConfig

    metadata = BaseMetadata.of_directory(model)
    parts = ComponentsConfig(instruction_encoder=16, attention_bias=True, segment_embedding=True, instruction_gate=4)
    found: dict[str, list[str]] = {}
    for number in range(count):
        for version in range(2):
            path = folder / f"a{number}-{version}"
            rank = (4, 8, 16, 32)[(number + version) % 4]
            write_adapter(path, metadata, rank, 2 * number + version, parts if number % 2 else None)
            found.setdefault(f"a{number}", []).append(path.name)
    return found


class AdapterTraffic:
    """What adapters answer alone, and what they answer while they are replaced."""

    def __init__(self, client: AsyncClient, versions: dict[str, list[str]], seed: int) -> None:
        self._client = client
        self._versions = versions
        self._rng = random.Random(seed)
        self._known: dict[tuple[int, str], Answer] = {}
        self._cases: list[Case] = []
        self.loads = 0

    async def learn(self, cases: list[Case]) -> None:
        """Ask every version alone."""
        self._cases = cases[:_CASES]
        for name, paths in self._versions.items():
            for path in paths:
                await self._client.load_adapter(name, path)
                for number, case in enumerate(self._cases):
                    answer = await case.ask(self._client, adapter=name)
                    self._known[number, answer.adapter] = answer

    async def ask(self, rng: random.Random) -> str:
        """One request for an adapter; what was wrong with its answer, or nothing."""
        number = rng.randrange(len(self._cases))
        got = await self._cases[number].ask(self._client, adapter=rng.choice(list(self._versions)), stream=True)
        expected = self._known.get((number, got.adapter))
        return "" if got == expected else f"wrong: {got.adapter} answered {got} instead of {expected}"[:600]

    async def reload(self, end: float, seconds: float) -> None:
        """Replace a version by the other every so many seconds; one that nobody uses comes and goes."""
        turn = 0
        while time.monotonic() + seconds < end:
            await asyncio.sleep(seconds)
            turn += 1
            name = self._rng.choice(list(self._versions))
            await self._client.load_adapter(name, self._versions[name][turn % 2])
            await self._client.load_adapter("idle", self._versions[name][turn % 2])
            await self._client.unload_adapter("idle")
            self.loads += 2
