"""A run of Evol-Instruct: rounds over a pool, in which what fails is tried again until its budget is spent."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ift_training.data.generation.calls import Servers, in_order
from ift_training.data.generation.evolve.operations import JOINING, REPLACING, Operations, Task
from ift_training.data.generation.record import GeneratedRecord
from ift_training.data.generation.run import Run, Shown, rejected
from ift_training.data.generation.seeds import read_seeds
from ift_training.data.generation.settings import EvolutionRecipe, Operation
from ift_training.data.generation.store import RecordStore

KIND = "evolve"


@dataclass(slots=True, eq=False)
class Member:
    """A record of the pool, what was tried on it, and how often in a row that failed."""

    record: GeneratedRecord
    tries: int = 0
    failures: int = 0


class Evolution:
    """One run. A success takes its parent's place in the pool or joins it; a failure sends its parent back."""

    def __init__(self, recipe: EvolutionRecipe, store: RecordStore, servers: Servers, shown: Shown) -> None:
        self._recipe = recipe
        self._run = Run(recipe, store, servers, shown)
        self._pool: list[Member] = []
        self._kept = 0
        self._given_up: list[dict[str, Any]] = []
        self._asked: set[tuple[object, ...]] = set()

    async def run(self) -> None:
        """Make everything. Raises GenerationError, SourceError, MissingExtraError; what was made is kept."""
        recipe, run = self._recipe, self._run
        seeds = read_seeds(recipe.seeds)
        roles = {"writer": recipe.writer, "answerer": recipe.answerer, "judge": recipe.judge}
        speakers = await run.begin(KIND, seeds, roles)
        operations = Operations(run, recipe, speakers["writer"], speakers["answerer"], speakers["judge"])
        self._pool = [Member(seed) for seed in seeds]
        self._asked = {_key(seed) for seed in seeds}
        breadth = self._breadth(seeds)
        for number in range(recipe.rounds):
            tasks = self._tasks(number, operations, breadth)
            if not tasks or not await self._round(number, tasks, operations):
                break
        run.store.set_note(f"{KIND}.given_up", self._given_up)
        if breadth is not None:
            run.store.set_note(f"{KIND}.breadth", breadth.finish([m.record for m in self._pool]))

    def _breadth(self, seeds: list[GeneratedRecord]) -> Breadth | None:
        if not self._recipe.operations.get("breadth"):
            return None
        return Breadth(self._recipe, seeds, self._run.store.path)

    async def _round(self, number: int, tasks: list[tuple[Member, Task]], operations: Operations) -> bool:
        """One operation for each member; False when there are enough records."""
        self._run.progress.begin(f"round {number + 1} of {self._recipe.rounds}", len(tasks))

        def ask(chosen: tuple[Member, Task]) -> Callable[[], Awaitable[list[GeneratedRecord]]]:
            return lambda: operations.run(chosen[1])

        await in_order(tasks, ask, self._take, self._recipe.in_flight)
        return self._wants_more

    @property
    def _wants_more(self) -> bool:
        return self._recipe.wanted is None or self._kept < self._recipe.wanted

    def _tasks(self, number: int, operations: Operations, breadth: Breadth | None) -> list[tuple[Member, Task]]:
        """What is done in a round: an operation for each member, and new tasks beside under-represented ones."""
        rng = random.Random(f"{self._recipe.seed}|round|{number}")
        found: list[tuple[Member, Task]] = []
        weights = self._recipe.operations
        for member in self._pool:
            names = [name for name in operations.applicable(member.record) if name != "breadth"]
            others, beside = sum(weights[name] for name in names), weights.get("breadth", 0.0)
            if not others or rng.random() * (others + beside) < beside:
                continue
            chosen: Operation = rng.choices(names, [weights[name] for name in names])[0]
            found.append((member, Task(member.record, chosen, self._count(member))))
        if breadth is not None:
            for place in breadth.choose([member.record for member in self._pool], len(self._pool) - len(found), rng):
                member = self._pool[place]
                found.append((member, Task(member.record, "breadth", self._count(member))))
        return found

    def _count(self, member: Member) -> int:
        member.tries += 1
        return member.tries - 1

    def _take(self, chosen: tuple[Member, Task], found: list[GeneratedRecord]) -> bool:
        member, task = chosen
        found = [self._once(record) for record in found]
        self._run.keep(found)
        kept = [record for record in found if record.status == "kept"]
        self._kept += len(kept)
        if not kept:
            self._fail(member, task, found)
        elif task.operation in REPLACING and member in self._pool:
            self._pool[self._pool.index(member)] = Member(kept[0])
        else:
            member.failures = 0
            self._pool += [Member(record) for record in kept if task.operation in JOINING]
        self._run.advance()
        return self._wants_more

    def _once(self, record: GeneratedRecord) -> GeneratedRecord:
        """The record, rejected where another one that was kept asks the same."""
        if record.status != "kept":
            return record
        if (key := _key(record)) in self._asked:
            return rejected(record, "repeated", "another record asks the same")
        self._asked.add(key)
        return record

    def _fail(self, member: Member, task: Task, found: list[GeneratedRecord]) -> None:
        """The parent goes back, unless it has failed too often."""
        member.failures += 1
        if member.failures > self._recipe.retries and member in self._pool:
            self._pool.remove(member)
            why = found[-1].reasons[0].message if found and found[-1].reasons else "no requirement fits"
            self._given_up.append({"record": member.record.id, "operation": task.operation, "last": why})


class Breadth:
    """Where the pool is thin. Vectors and clusters are of the pool that the run begins with."""

    def __init__(self, recipe: EvolutionRecipe, seeds: list[GeneratedRecord], store: Path | None) -> None:
        from ift_training.data.embedding import SentenceEncoder
        from ift_training.data.generation.evolve.clusters import Clusters

        texts = [seed.instruction for seed in seeds]
        self._clusters = Clusters(SentenceEncoder(recipe.breadth.model), texts, recipe.breadth.smallest)
        self._before = self._clusters.of(texts)
        self._labels: dict[str, int] = {seed.id: label for seed, label in zip(seeds, self._before, strict=True)}
        self._picture = None if store is None else store.with_name(f"{store.name}.breadth.png")

    def choose(self, pool: list[GeneratedRecord], count: int, rng: random.Random) -> list[int]:
        """Places of members to make new tasks beside."""
        from ift_training.data.generation.evolve.clusters import under_represented

        return under_represented(self._of(pool), count, rng) if pool else []

    def _of(self, pool: list[GeneratedRecord]) -> list[int]:
        new = [record for record in pool if record.id not in self._labels]
        labels = self._clusters.of([record.instruction for record in new])
        self._labels |= {record.id: label for record, label in zip(new, labels, strict=True)}
        return [self._labels[record.id] for record in pool]

    def finish(self, pool: list[GeneratedRecord]) -> dict[str, Any]:
        """The distribution before and after, drawn beside the store."""
        from ift_training.data.generation.evolve.clusters import plot_distribution

        return plot_distribution(self._before, self._of(pool), self._picture)


def _key(record: GeneratedRecord) -> tuple[object, ...]:
    """What a record asks, behind what was said before; steps to an answer are another record than the answer."""
    return (record.history, record.instruction, record.context, record.lineage.step == "evolve.rationale")
