"""The prompts that answers are drawn to: different ones to learn from, and others that are held out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ift_serve.text.prompt import PromptError, RenderedPrompt
from ift_training.data.encode import Encoder
from ift_training.data.mixture import ExampleDataset
from ift_training.data.records import Record


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """A record's prompt as the engine gets it."""

    task: str
    record: Record
    prompt: RenderedPrompt


def training_prompts(dataset: ExampleDataset, encoder: Encoder, count: int, longest: int) -> list[TaskPrompt]:
    """The first ``count`` different prompts of at most ``longest`` tokens, in the order that the seed gives."""
    return _different((dataset.record(index) for index in range(len(dataset))), encoder, count, longest, set())


def held_out_prompts(
    dataset: ExampleDataset, encoder: Encoder, count: int, longest: int, known: Iterable[TaskPrompt]
) -> list[TaskPrompt]:
    """``count`` prompts that are none of the known ones, one of each source in turn."""
    turns = itertools.zip_longest(*(_records(dataset, pool) for pool in range(len(dataset.pools))))
    found = (record for turn in turns for record in turn if record is not None)
    return _different(found, encoder, count, longest, {prompt.record.key for prompt in known})


def _records(dataset: ExampleDataset, pool: int) -> Iterator[tuple[Record, str]]:
    chosen = dataset.pools[pool]
    for place in range(len(chosen)):
        yield chosen.source.record(place if chosen.kept is None else chosen.kept[place], 0)


def _different(
    records: Iterable[tuple[Record, str]], encoder: Encoder, count: int, longest: int, seen: set[bytes]
) -> list[TaskPrompt]:
    found: list[TaskPrompt] = []
    for record, task in records:
        if len(found) == count:
            break
        if record.key in seen:
            continue
        seen.add(record.key)
        try:
            prompt = encoder.renderer.conversation(record.prompt)
        except PromptError:
            continue
        if len(prompt.token_ids) <= longest:
            found.append(TaskPrompt(task, record, prompt))
    return found
