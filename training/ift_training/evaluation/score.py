"""Pass rates of answers by the checkers, task by task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ift_serve.checks import PassRates, judge_all, pass_rates
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_training.data.encode import Encoder
from ift_training.data.mixture import ExampleDataset
from ift_training.data.records import Record
from ift_training.evaluation.answerer import Answerer


@dataclass(frozen=True, slots=True)
class Judged:
    """A request, its task and what was answered."""

    record: Record
    task: str
    answer: str
    passed: bool


class Scorer:
    """Asks the same validation requests each time; those that nothing can judge are left out."""

    def __init__(
        self, dataset: ExampleDataset, encoder: Encoder, *, examples: int, max_new_tokens: int, batch_size: int
    ) -> None:
        self.requests = _requests(dataset, examples)
        records = [record for record, _ in self.requests]
        self._answerer = Answerer(records, encoder, max_new_tokens=max_new_tokens, batch_size=batch_size)

    def __bool__(self) -> bool:
        return bool(self.requests)

    def judged(self, model: Any, components: InstructionComponents | None) -> list[Judged]:
        """Every request with the model's greedy answer. The model is in evaluation mode meanwhile."""
        texts = self._answerer.texts(model, components)
        return [
            Judged(record, task, text, bool(judge_all(record.checks, text)))
            for (record, task), text in zip(self.requests, texts, strict=True)
        ]

    def __call__(self, model: Any, components: InstructionComponents | None) -> PassRates:
        """The scores of the model as it is now."""
        return pass_rates_of(self.judged(model, components))


def pass_rates_of(judged: Iterable[Judged]) -> PassRates:
    """The shares that passed, by task."""
    return pass_rates((one.task, one.passed) for one in judged)


def _requests(dataset: ExampleDataset, examples: int) -> list[tuple[Record, str]]:
    """The first ``examples`` requests of each task that can be judged."""
    taken: dict[str, int] = dict.fromkeys(dataset.tasks, 0)
    chosen = []
    for pool in dataset.pools:
        # A family never runs out of requests, however few of them the validation loss is computed on.
        places = range(examples * len(pool.source.settings.procedural or ())) if pool.kept is None else pool.kept
        for place in places:
            record, task = pool.source.record(place, 0)
            if taken[task] < examples and record.checks:
                taken[task] += 1
                chosen.append((record, task))
    return chosen
