"""One sample of one model for one prompt, judged: what scores, comparisons and reports are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ift_serve.evaluation.serving.outcomes import Failure, LogLikelihood, Outcome
from ift_serve.evaluation.tasks.task import COUSIN_OF, ConstraintVerdict, Item, Label, Task


@dataclass(frozen=True, slots=True)
class Row:
    """``error``: why there is no answer; such a row is in no score. ``verdicts``: by column, one a constraint.

    ``earlier``: answers to the turns before the last. ``labels``: what scores are also broken down by.
    ``log_prob`` (nats), ``text_tokens`` and ``text_bytes`` are of texts that were scored instead of answered.
    """

    model: str
    task: str
    key: str
    repeat: int
    prompt: str
    answer: str = ""
    reasoning: str = ""
    error: str = ""
    is_empty: bool = False
    is_cut: bool = False
    verdicts: Mapping[str, Sequence[ConstraintVerdict]] = field(default_factory=dict)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    drawn_tokens: int = 0
    seconds: float = 0.0
    request_id: str = ""
    log_prob: float | None = None
    text_tokens: int = 0
    text_bytes: int = 0
    earlier: Sequence[str] = ()
    labels: Mapping[str, Label] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What it is one observation of: wordings of one prompt are as little independent as its samples."""
        return str(self.labels.get(COUSIN_OF, self.key))

    def passes(self, column: str) -> bool:
        """Whether every constraint is kept."""
        return all(verdict.passed for verdict in self.verdicts[column])

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Row:
        """From what :meth:`values` gives, out of JSON. Raises TypeError, KeyError."""
        verdicts = {
            column: tuple(ConstraintVerdict(**(v | {"span": tuple(v["span"]) if v["span"] else None})) for v in judged)
            for column, judged in values["verdicts"].items()
        }
        return cls(**(dict(values) | {"verdicts": verdicts, "earlier": tuple(values["earlier"])}))

    def values(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def row_of(model: str, task: Task, item: Item, repeat: int, outcome: Outcome) -> Row:
    """The outcome of a request, judged by its task."""
    place: dict[str, Any] = {"model": model, "task": task.name, "key": item.key, "repeat": repeat, "prompt": item.text}
    place["labels"] = dict(item.labels)
    if isinstance(outcome, Failure):
        return Row(**place, error=str(outcome), request_id=outcome.request_id)
    if isinstance(outcome, LogLikelihood):
        return Row(
            **place,
            log_prob=outcome.log_prob,
            text_tokens=outcome.tokens,
            text_bytes=len(item.text.encode(errors="replace")),
            prompt_tokens=outcome.prompt_tokens,
            seconds=outcome.seconds,
        )
    return Row(
        **place,
        answer=outcome.text,
        reasoning=outcome.reasoning,
        is_empty=outcome.is_empty,
        is_cut=outcome.is_cut,
        verdicts=task.judge_answers(item, (*outcome.earlier, outcome.text)),
        prompt_tokens=outcome.prompt_tokens,
        generated_tokens=outcome.generated_tokens,
        drawn_tokens=outcome.drawn_tokens,
        seconds=outcome.seconds,
        request_id=outcome.request_id,
        earlier=outcome.earlier,
    )
