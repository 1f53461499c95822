"""Tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.evaluation.tasks.gsm8k import Gsm8k
from ift_serve.evaluation.tasks.instructed import Instructed
from ift_serve.evaluation.tasks.mt_bench import MtBench
from ift_serve.evaluation.tasks.perplexity import Perplexity
from ift_serve.evaluation.tasks.task import Task

TASKS = ("adherence", "ifeval", "ifbench", "gsm8k", "mt_bench", "perplexity")


def build_task(name: str, data: Mapping[str, Path]) -> Task:
    """A task; ``data``: local files by name of task. Raises EvaluationError."""
    if name not in TASKS:
        raise EvaluationError(
            f"no task {name!r}; there are {', '.join(TASKS)}. Tasks of lm-eval run by its own command: "
            f"python -m ift_serve.evaluation run --model ift-serve --tasks {name} ..."
        )
    if name == "adherence":
        return Adherence(data.get(name))
    if name not in data:
        raise EvaluationError(f"{name}: name its local file: --data {name}=FILE")
    if name == "gsm8k":
        return Gsm8k(data[name])
    if name == "mt_bench":
        return MtBench(data[name])
    if name == "perplexity":
        return Perplexity(data[name])
    return Instructed(name, data[name])
