"""Tasks of lm-eval in a run of our own: found by name, asked by our model, their samples among our rows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.tasks.task import ConstraintVerdict

if TYPE_CHECKING:
    from ift_serve.evaluation.harness.backend import IftServeLM


@dataclass(frozen=True, slots=True)
class HarnessPlan:
    """Which tasks, and how they are asked. ``include_path``: folder of task files that come before lm-eval's own."""

    names: Sequence[str]
    include_path: Path | None = None
    limit: int | None = None
    chat: bool = False
    shots: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class HarnessTasks:
    """Tasks and groups with their data, and the manager that made them."""

    loaded: Sequence[Any]
    manager: Any


def load_tasks(plan: HarnessPlan) -> HarnessTasks:
    """Find and load everything before anything is asked. Raises EvaluationError that names the task.

    lm-eval's own 15,000 task files are read only where the folder has not all the names.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise EvaluationError(
            f"{plan.names[0]}: no task of ift-serve; tasks of lm-eval need it installed: pip install 'ift-serve[eval]'"
        ) from None
    if plan.include_path is not None and not plan.include_path.is_dir():
        raise EvaluationError(f"--include-path {plan.include_path}: is no directory")
    include = None if plan.include_path is None else str(plan.include_path)
    manager = TaskManager(include_path=include, include_defaults=False)
    if not set(plan.names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=include)
    for name in plan.names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, 3)
            raise EvaluationError(f"{name}: neither ift-serve nor lm-eval has such a task; near: {', '.join(near)}")
    return HarnessTasks([part for name in plan.names for part in _loaded(manager, name)], manager)


def _loaded(manager: Any, name: str) -> list[Any]:
    """What a name stands for, with its data: a group, a task, or the tasks of a tag."""
    import httpx2
    from datasets.exceptions import DatasetsError

    try:
        found = manager.load([name])
        group = found.get("groups", {}).get(name)
        return [group] if group is not None else list(found["tasks"].values())
    except ImportError as error:
        missing = error.name or str(error)
        raise EvaluationError(
            f"{name}: needs the package {missing}, which is not installed: pip install {missing}, or lm-eval's extra "
            f"for this task"
        ) from None
    except (DatasetsError, httpx2.HTTPError, OSError, ValueError, KeyError) as error:
        said = str(error).partition("\n")[0]
        raise EvaluationError(
            f"{name}: its data cannot be loaded: {type(error).__name__}: {said:.300}; without a network, use a task "
            "file that names local data (--include-path)"
        ) from None


def run_tasks(lm: IftServeLM, tasks: HarnessTasks, plan: HarnessPlan, model: str) -> tuple[dict[str, Any], list[Row]]:
    """lm-eval's results and our rows of them. Requests that fail are rows with errors, in no score of ours."""
    from lm_eval import simple_evaluate

    found: dict[str, Any] = simple_evaluate(
        model=lm,
        tasks=list(tasks.loaded),
        task_manager=tasks.manager,
        limit=plan.limit,
        num_fewshot=plan.shots,
        apply_chat_template=plan.chat,
        fewshot_as_multiturn=plan.chat,
        bootstrap_iters=1000,
        log_samples=True,
        random_seed=plan.seed,
        fewshot_random_seed=plan.seed,
    )
    samples = found["samples"]
    rows = [row for task, listed in samples.items() for row in _rows(model, task, listed, lm.failed)]
    return found, rows


def metrics_of(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By task, every metric that is a number, as lm-eval names it: ``acc,none``."""
    return {
        task: {name: float(value) for name, value in values.items() if _is_metric(name, value)}
        for task, values in results["results"].items()
    }


def _is_metric(name: str, value: object) -> bool:
    return "," in name and isinstance(value, int | float) and not isinstance(value, bool)


def _rows(
    model: str, task: str, samples: Sequence[Mapping[str, Any]], failed: Mapping[tuple[str, int], str]
) -> list[Row]:
    """One row a document, with a column a metric that is yes or no; filters of one document are columns of one row."""
    by_document: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_document.setdefault(int(sample["doc_id"]), []).append(sample)
    rows = []
    for number, own in by_document.items():
        error = failed.get((task, number), "")
        verdicts: dict[str, list[ConstraintVerdict]] = {}
        for sample in own:
            for metric in sample["metrics"]:
                if (passed := _truth(sample[metric])) is not None:
                    column = metric if sample["filter"] == "none" else f"{metric}, {sample['filter']}"
                    verdicts[column] = [ConstraintVerdict(task, passed)]
        prompt = str(own[0]["arguments"][0][0])
        answer = _answer(own[0])
        if error:
            rows.append(Row(model, task, str(number), 0, prompt, error=error))
        else:
            is_empty = not answer.strip()
            rows.append(Row(model, task, str(number), 0, prompt, answer=answer, verdicts=verdicts, is_empty=is_empty))
    return rows


def _truth(value: object) -> bool | None:
    """A metric of one document that is yes or no; None for any other."""
    if isinstance(value, bool):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return bool(number) if number in (0.0, 1.0) else None


def _answer(sample: Mapping[str, Any]) -> str:
    """What was generated, or the choice that was found most probable."""
    responses = [response[0] for response in sample["resps"]]
    if isinstance(responses[0], str):
        return responses[0]
    scores = [response[0] if isinstance(response, tuple | list) else response for response in responses]
    best = max(range(len(scores)), key=lambda index: scores[index])
    arguments = sample["arguments"][best]
    return str(arguments[1]) if len(arguments) > 1 else ""
