"""`ift-serve eval` with tasks of lm-eval: which names are its, and asking a server all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from ift_serve.evaluation.harness.lm_eval_tasks import HarnessPlan, HarnessTasks
    from ift_serve.evaluation.rows import Row

_PREFIX = "lm_eval:"


def split_names(tasks: str, files: Mapping[str, Path], include_path: Path | None) -> tuple[list[str], list[str]]:
    """Names of our own tasks, and of lm-eval's, each once.

    Where both have one, it is ours if its file is named, or if there is no folder of lm-eval's to look in.
    """
    from ift_serve.evaluation.tasks.registry import TASKS, WITHOUT_FILE

    own: dict[str, None] = {}
    others: dict[str, None] = {}
    for name in (part.strip() for part in tasks.split(",")):
        kind = name.partition("@")[0].replace("-", "_")
        if name.startswith(_PREFIX):
            others[name.removeprefix(_PREFIX)] = None
        elif kind in TASKS and (kind in WITHOUT_FILE or kind in files or include_path is None):
            own[name] = None
        elif name:
            others[name] = None
    return list(own), list(others)


def ask_harness(
    target: str,
    arguments: Mapping[str, Any],
    tasks: HarnessTasks,
    plan: HarnessPlan,
    models: Sequence[str],
    report: Path,
) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Our rows, and lm-eval's results by model. Answers are kept beside those of our own tasks."""
    from ift_serve.evaluation.harness.backend import IftServeLM
    from ift_serve.evaluation.harness.lm_eval_tasks import run_tasks
    from ift_serve.evaluation.run import BASE

    # What lm-eval says of itself is not for this command's output.
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    rows: list[Row] = []
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        adapter = "" if model == BASE else model
        results = str(report / "results.sqlite")
        lm = IftServeLM(target, adapter=adapter, results=results, seed=plan.seed, errors="count", **arguments)
        try:
            found[model], own = run_tasks(lm, tasks, plan, model)
        finally:
            lm.close()
        rows += own
    return rows, found


def harness_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Every metric of every task, with its standard error where lm-eval has one."""
    from rich import box
    from rich.table import Table

    table = Table("task", "metric", box=box.SIMPLE_HEAD, pad_edge=False, title="lm-eval")
    for model in found:
        table.add_column(model, overflow="fold")
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for model, tasks in found.items():
        for task, metrics in tasks.items():
            for name, value in metrics.items():
                metric, _, rest = name.partition(",")
                if metric.endswith("_stderr"):
                    continue
                error = metrics.get(f"{metric}_stderr,{rest}")
                said = f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")
                cells.setdefault((task, name), {})[model] = said
    for (task, name), by_model in cells.items():
        table.add_row(task, name.removesuffix(",none"), *(by_model.get(model, "") for model in found))
    return table
