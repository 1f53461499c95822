"""A run of Self-Instruct: instructions until there are enough, then instances of each, then a last look at them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ift_serve.evaluation.serving.outcomes import Answer
from ift_training.data.generation.answers import yes_or_no
from ift_training.data.generation.calls import Servers, Speaker, in_order
from ift_training.data.generation.record import GeneratedRecord, Reason
from ift_training.data.generation.rouge import SimilarityIndex
from ift_training.data.generation.run import Run, Shown, rejected
from ift_training.data.generation.seeds import read_seeds
from ift_training.data.generation.self_instruct.instances import (
    Instance,
    input_first,
    is_classification,
    output_first,
)
from ift_training.data.generation.self_instruct.instructions import Candidate, candidates, choose, numbered
from ift_training.data.generation.settings import GenerationRecipe
from ift_training.data.generation.store import RecordStore

INSTRUCTION, INSTANCE = "instruction", "instance"
"""Steps: an instruction without an answer, and a record with one."""


class SelfInstruct:
    """One run. Records of the step ``instruction`` have no response; those of ``instance`` can be trained on."""

    def __init__(self, recipe: GenerationRecipe, store: RecordStore, servers: Servers, shown: Shown) -> None:
        self._recipe = recipe
        self._run = Run(recipe, store, servers, shown)
        self._pool: dict[str, str] = {}
        self._order: list[str] = []
        self._human: list[str] = []
        self._machine: list[str] = []
        self._accepted: list[GeneratedRecord] = []
        self._index = SimilarityIndex(recipe.instructions.similarity)
        self._speakers: dict[str, Speaker] = {}

    async def run(self) -> None:
        """Make everything. Raises GenerationError, SourceError; what was made until then is kept."""
        recipe = self._recipe
        seeds = read_seeds(recipe.seeds)
        roles = {
            "instructions": recipe.instructions.speaker,
            "classification": recipe.classification,
            "instances": recipe.instances.speaker,
        }
        if recipe.verification.by_model:
            roles["verification"] = recipe.verification.speaker
        self._speakers = await self._run.begin("generate", seeds, roles)
        for seed in seeds:
            self._human.append(seed.id)
            self._join(seed)
        self._run.progress.begin("instructions", recipe.tries)
        await in_order(range(recipe.tries), self._ask_instructions, self._take_instructions, recipe.in_flight)
        self._run.progress.begin("instances", len(self._accepted))
        await in_order(self._accepted, self._ask_instances, self._take_instances, recipe.in_flight)

    def _join(self, record: GeneratedRecord) -> None:
        """Make an instruction one of the pool."""
        self._pool[record.id] = record.instruction
        self._order.append(record.id)
        self._index.add(record.instruction)

    def _ask_instructions(self, number: int) -> Callable[[], Awaitable[tuple[list[str], Answer | None]]]:
        rng = random.Random(f"{self._recipe.seed}|instructions|{number}")
        shown = choose(rng, self._human, self._machine, self._recipe.instructions)
        listed = numbered([self._pool[record_id] for record_id in shown])
        text = self._run.prompts["instructions"].fill(examples=listed, number=str(len(shown) + 1))

        async def answered() -> tuple[list[str], Answer | None]:
            return shown, await self._speakers["instructions"].say(text, number)

        return answered

    def _take_instructions(self, number: int, found: tuple[list[str], Answer | None]) -> bool:
        shown, answer = found
        speaker = self._speakers["instructions"]
        lineage = self._run.lineage(INSTRUCTION, speaker, ("instructions",), parents=tuple(shown), place=number)
        settings = self._recipe.instructions
        listed = candidates(answer, settings) if answer is not None else [_refused()]
        records = [self._judged(GeneratedRecord(each.text, "", lineage), each) for each in listed]
        self._run.keep(records)
        self._run.advance()
        return self._recipe.wanted is None or len(self._accepted) < self._recipe.wanted

    def _judged(self, record: GeneratedRecord, candidate: Candidate) -> GeneratedRecord:
        """The record of an instruction; a new one joins the pool at once, so that the next is compared with it too."""
        if candidate.rejection is not None:
            return record.judged("rejected", candidate.rejection)
        if (match := self._index.most_similar(record.instruction)) is not None:
            other = self._order[match.member]
            threshold = self._recipe.instructions.similarity
            return record.judged("rejected", Reason("similar", f"is like {other}", match.score, threshold))
        kept = record.judged("kept")
        self._join(kept)
        self._machine.append(kept.id)
        self._accepted.append(kept)
        return kept

    def _ask_instances(self, record: GeneratedRecord) -> Callable[[], Awaitable[list[GeneratedRecord]]]:
        return lambda: self._instances(record)

    def _take_instances(self, _: GeneratedRecord, found: list[GeneratedRecord]) -> bool:
        self._run.keep(found)
        self._run.advance()
        return True

    async def _instances(self, parent: GeneratedRecord) -> list[GeneratedRecord]:
        """All instances of an instruction, those that are dropped too."""
        prompts, fields = self._run.prompts, {"instruction": parent.instruction}
        label = await self._speakers["classification"].say(prompts["classification"].fill(**fields))
        is_label = label is not None and is_classification(label)
        name = "output_first" if is_label else "input_first"
        speaker = self._speakers["instances"]
        answer = await speaker.say(prompts[name].fill(**fields))
        if answer is None:
            found = [Instance("", "", _refused().rejection)]
        else:
            found = output_first(answer) if is_label else input_first(answer)
        used = ("classification", name, *(("verify",) if "verification" in self._speakers else ()))
        lineage = self._run.lineage(INSTANCE, speaker, used, parents=(parent.id,))
        made = [
            GeneratedRecord(parent.instruction, each.output, replace(lineage, place=place), each.input)
            for place, each in enumerate(found)
        ]
        chosen = self._chosen(parent, found)
        return list(
            await asyncio.gather(
                *(
                    self._verified(record)
                    if place in chosen
                    else _dropped(record, found[place].rejection, self._recipe.instances.most)
                    for place, record in enumerate(made)
                )
            )
        )

    def _chosen(self, parent: GeneratedRecord, found: list[Instance]) -> set[int]:
        """Places of the instances that are kept: those that no rule drops, some of them where there are too many."""
        good = [place for place, each in enumerate(found) if each.rejection is None]
        rng = random.Random(f"{self._recipe.seed}|instances|{parent.id}")
        return set(rng.sample(good, min(len(good), self._recipe.instances.most)))

    async def _verified(self, record: GeneratedRecord) -> GeneratedRecord:
        """A record after the last look."""
        if "verification" not in self._speakers:
            return record.judged("kept")
        text = self._run.prompts["verify"].fill(asked=record.asked, response=record.response)
        said = yes_or_no(await self._speakers["verification"].say(text))
        if said is None:
            return record.judged("flagged", Reason("verification", "the model said neither yes nor no"))
        if not said:
            return rejected(record, "verification", "the model says that the answer does not do what is asked")
        return record.judged("kept", Reason("verification", "the model says that the answer does what is asked"))


async def _dropped(record: GeneratedRecord, reason: Reason | None, most: int) -> GeneratedRecord:
    return record.judged("rejected", reason or Reason("surplus", f"the instruction has {most} others", threshold=most))


def _refused() -> Candidate:
    return Candidate("", Reason("refused", "the server takes no such request; the prompt may be too long"))
