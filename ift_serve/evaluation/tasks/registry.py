"""Tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.tasks.adherence import Adherence, Unseen
from ift_serve.evaluation.tasks.density import Density
from ift_serve.evaluation.tasks.gsm8k import Gsm8k
from ift_serve.evaluation.tasks.instructed import Instructed
from ift_serve.evaluation.tasks.mt_bench import MtBench
from ift_serve.evaluation.tasks.multi_if import MultiIf
from ift_serve.evaluation.tasks.perplexity import Perplexity
from ift_serve.evaluation.tasks.reliable import Reliable
from ift_serve.evaluation.tasks.task import Task

TASKS = (
    "adherence", "unseen", "density", "reliable", "ifeval", "ifbench", "multi_if", "gsm8k", "mt_bench", "perplexity",
)  # fmt: skip
WITHOUT_FILE = ("adherence", "unseen", "density", "reliable")
"""Tasks whose prompts come with the package."""


def build_task(name: str, data: Mapping[str, Path]) -> Task:
    """A task; ``data``: local files by name of task. ``reliable@3`` asks in three wordings. Raises EvaluationError."""
    kind, _, wordings = name.partition("@")
    kind = kind.replace("-", "_")
    if kind not in TASKS or (wordings and kind != "reliable"):
        raise EvaluationError(f"no task {name!r}; there are {', '.join(TASKS)}")
    if kind == "reliable":
        if not (wordings or "5").isdigit():
            raise EvaluationError(f"{name}: write reliable@k with a number of wordings")
        return Reliable(data.get(kind), int(wordings or "5"))
    if kind == "density":
        return Density()
    if kind == "adherence":
        return Adherence(data.get(kind))
    if kind == "unseen":
        return Unseen(data.get(kind))
    if kind not in data:
        raise EvaluationError(f"{kind}: name its local file: --data {kind}=FILE; lm-eval's own task is lm_eval:{kind}")
    if kind in _OF_A_FILE:
        return _OF_A_FILE[kind](data[kind])
    return Instructed(kind, data[kind])


_OF_A_FILE: dict[str, Callable[[Path], Task]] = {
    "gsm8k": Gsm8k, "mt_bench": MtBench, "perplexity": Perplexity, "multi_if": MultiIf,
}  # fmt: skip
