"""A few answers for a person to read: the same requests before the training, at each evaluation, and at its end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_training.data.encode import Encoder
from ift_training.data.mixture import ExampleDataset, Pool
from ift_training.data.records import Record
from ift_training.evaluation.answerer import Answerer

_SHOWN = 300
"""Characters of a request or an answer that are shown; longer ones end in an ellipsis."""


@dataclass(slots=True)
class Sample:
    """A request with its answers: ``before`` the training, at each evaluated step, and of the weights written."""

    task: str
    request: str
    before: str = ""
    at_step: dict[int, str] = field(default_factory=dict)
    after: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        steps = [{"step": step, "answer": answer} for step, answer in self.at_step.items()]
        return {"task": self.task, "request": self.request, "before": self.before, "steps": steps, "after": self.after}


class Samples:
    """Greedy answers to the first validation requests of each task in turn, ``count`` in all."""

    def __init__(
        self, dataset: ExampleDataset, encoder: Encoder, *, count: int, max_new_tokens: int, batch_size: int
    ) -> None:
        chosen = list(_chosen(dataset, count))
        self.samples = [Sample(task, _short(record.prompt[-1].content)) for record, task in chosen]
        records = [record for record, _ in chosen]
        self._answerer = Answerer(records, encoder, max_new_tokens=max_new_tokens, batch_size=batch_size)

    def __bool__(self) -> bool:
        return bool(self.samples)

    def answers(self, model: Any, components: InstructionComponents | None) -> list[str]:
        """What the model says now, shortened. It is in evaluation mode meanwhile."""
        return [_short(text) for text in self._answerer.texts(model, components)]

    def keep_before(self, model: Any, components: InstructionComponents | None) -> None:
        """Note the answers of the model that the training begins with."""
        for sample, answer in zip(self.samples, self.answers(model, components), strict=True):
            sample.before = answer

    def keep_after(self, model: Any, components: InstructionComponents | None) -> None:
        """Note the answers of the weights that are written."""
        for sample, answer in zip(self.samples, self.answers(model, components), strict=True):
            sample.after = answer


class SampleCallback(TrainerCallback):  # type: ignore[misc]
    """Shows the answers at each evaluation. ``add_text(tag, text, step)`` writes to TensorBoard, once there is one."""

    def __init__(self, samples: Samples, answers: Callable[[], list[str]], console: Console | None) -> None:
        self._samples = samples
        self._answers = answers
        self._console = console
        self.add_text: Callable[[str, str, int], None] = lambda tag, text, step: None

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask again; on the first process only."""
        if not state.is_world_process_zero:
            return
        step = state.global_step
        for number, (sample, answer) in enumerate(zip(self._samples.samples, self._answers(), strict=True)):
            sample.at_step[step] = answer
            self.add_text(f"samples/{number}_{sample.task}", _markdown(sample, answer), step)
            if self._console is not None:
                self._console.print(_lines(sample, answer, step))


def _lines(sample: Sample, answer: str, step: int) -> Text:
    text = Text()
    for name, value, style in (
        (f"step {step}, {sample.task}", sample.request, "dim"),
        ("before", sample.before, "yellow"),
        ("now", answer, "green"),
    ):
        text.append(f"{name}: ", style="bold").append(f"{_one_line(value)}\n", style=style)
    text.rstrip()
    return text


def _markdown(sample: Sample, answer: str) -> str:
    """For TensorBoard, which renders Markdown; four spaces before a line show it as it is."""
    parts = (("request", sample.request), ("before", sample.before), ("now", answer))
    return "\n\n".join(f"{name}:\n\n" + "\n".join(f"    {line}" for line in text.split("\n")) for name, text in parts)


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ⏎ ")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _chosen(dataset: ExampleDataset, count: int) -> Iterator[tuple[Record, str]]:
    """The first requests of the pools, one of each in turn."""
    turns = itertools.zip_longest(*(_requests(pool, count) for pool in dataset.pools))
    return itertools.islice((found for turn in turns for found in turn if found is not None), count)


def _requests(pool: Pool, count: int) -> Iterator[tuple[Record, str]]:
    for place in range(min(count, len(pool))):
        yield pool.source.record(place if pool.kept is None else pool.kept[place], 0)
