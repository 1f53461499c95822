"""An evaluation: models times tasks times repeats, asked together and judged as answers come."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ift_serve.client import AsyncClient, ServerError
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.rows import Row, row_of
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.request_runner import Outcomes, RequestRunner
from ift_serve.evaluation.serving.requests import Generation, Request
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.serving.served_model import ServedModel, pinned
from ift_serve.evaluation.tasks.task import Item, Task

BASE = "base"
"""What the model without an adapter is called."""
_RECENT = 64
"""Samples that the rate is taken from."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be evaluated. ``adapters``: references, or ``base``; ``limit``: prompts of each task.

    ``trained_on``: names of families and checks by name of adapter, where the server does not tell them.
    """

    tasks: Sequence[Task]
    adapters: Sequence[str] = (BASE,)
    settings: DecodingSettings = field(default_factory=DecodingSettings)
    repeats: int = 1
    seed: int = 0
    limit: int | None = None
    trained_on: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Progress:
    """How far a run is: by model and task, samples that are done, failed and passed."""

    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    counts: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    planned: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    judged: set[tuple[str, str]] = field(default_factory=set)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @property
    def rate(self) -> float:
        """Samples a second, by the last ones: what an earlier run had kept comes at once and tells nothing."""
        is_full = len(self.recent) == _RECENT
        counted, begun = (_RECENT, self.recent[0]) if is_full else (self.done, self.started)
        return counted / max(1e-6, time.monotonic() - begun)

    @property
    def seconds_left(self) -> float:
        """By that rate."""
        return (self.total - self.done) / self.rate if self.done else float("inf")

    def add(self, row: Row) -> None:
        """Count a row."""
        counts = self.counts[row.model, row.task]
        self.done += 1
        self.recent.append(time.monotonic())
        counts[0] += 1
        counts[1] += bool(row.error)
        if row.verdicts:
            self.judged.add((row.model, row.task))
            counts[2] += row.passes(next(iter(row.verdicts)))


@dataclass(frozen=True, slots=True)
class Result:
    """All rows in the order of the plan, the labels of the models in the order of the adapters, and the cost.

    ``trained_on``: by label, of the adapters of which it is known.
    """

    rows: list[Row]
    models: list[str]
    served: ServedModel
    runner: RequestRunner
    seconds: float
    trained_on: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def evaluate(
    client: AsyncClient,
    plan: Plan,
    store: ResultStore,
    *,
    concurrency: int | None = None,
    timeout: float = 300.0,
    attempts: int = 4,
    shown: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Ask and judge everything; ``shown`` is called after each row. Raises ServerError, EvaluationError.

    What is wrong with the whole run (no server, no such adapter) is found before anything is asked.
    """
    served = await ServedModel.of(client)
    models = [await _pinned(client, plan.settings, adapter) for adapter in dict.fromkeys(plan.adapters)]
    trained_on = await _trained_on(client, plan, [label for label, _ in models])
    runner = RequestRunner(client, served, store, concurrency=concurrency, timeout=timeout, attempts=attempts)
    places, requests = _planned(plan, models)
    if any(not isinstance(request, Generation) for request in requests):
        served.require_scores()
    progress = Progress(len(requests))
    for model, task, _, _ in places:
        progress.planned[model, task.name] += 1
    rows: dict[int, Row] = {}

    def done(index: int, outcomes: Outcomes) -> None:
        model, task, item, repeat = places[index]
        rows[index] = row_of(model, task, item, repeat, outcomes[0])
        progress.add(rows[index])
        shown(progress)

    begun = time.monotonic()
    await runner.run(requests, done)
    ordered = [rows[index] for index in range(len(requests))]
    return Result(ordered, [label for label, _ in models], served, runner, time.monotonic() - begun, trained_on)


_Place = tuple[str, Task, Item, int]


def _planned(plan: Plan, models: Sequence[tuple[str, DecodingSettings]]) -> tuple[list[_Place], list[Request]]:
    """Models take turns within an item, so that what drifts on a server drifts for all of them."""
    places: list[_Place] = []
    requests: list[Request] = []
    for task in plan.tasks:
        for item in task.limited(plan.limit):
            # A text that is scored has no samples: its score is always the same.
            is_drawn = isinstance(task.request(item, plan.settings, plan.seed, 0), Generation)
            for repeat in range(plan.repeats if is_drawn else 1):
                for label, settings in models:
                    places.append((label, task, item, repeat))
                    requests.append(task.request(item, settings, plan.seed, repeat))
    return places, requests


async def _pinned(client: AsyncClient, settings: DecodingSettings, adapter: str) -> tuple[str, DecodingSettings]:
    own = await pinned(client, settings.with_adapter("" if adapter == BASE else adapter))
    return own.adapter or BASE, own


async def _trained_on(client: AsyncClient, plan: Plan, labels: Sequence[str]) -> dict[str, Sequence[str]]:
    """What the plan says, else what the server does. Raises EvaluationError where a task needs it and nobody does."""
    found: dict[str, Sequence[str]] = {}
    for label in labels:
        name = label.partition("@")[0]
        names = plan.trained_on.get(name) or (() if label == BASE else await _told(client, label))
        if names:
            found[label] = names
    needing = next((task.name for task in plan.tasks if task.needs_training), None)
    if needing is None:
        return found
    adapters = [label for label in labels if label != BASE]
    if not adapters:
        raise EvaluationError(f"{needing}: name an adapter beside the base: --adapter base --adapter NAME")
    if unknown := [label for label in adapters if label not in found]:
        raise EvaluationError(
            f"{needing}: {unknown[0]}: nothing says what it was trained on; name its directory with "
            f"--recipe {unknown[0].partition('@')[0]}=DIR, or train it again if its ift_config.json has no such list"
        )
    return found


async def _told(client: AsyncClient, label: str) -> Sequence[str]:
    """What the server says of an adapter; nothing where the caller may not ask, which takes the role admin."""
    try:
        return (await client.adapter(label)).trained_on
    except ServerError as error:
        if error.code in ("PERMISSION_DENIED", "UNIMPLEMENTED"):
            return ()
        raise
