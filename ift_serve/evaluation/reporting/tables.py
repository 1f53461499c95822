"""Terminal tables: progress of a run, and its results."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ift_serve.evaluation.run import Progress

_NAMES = ("task", "model", "models", "judged by")


def live_table(progress: Progress) -> Group:
    """Done, failed and score so far by model and task; rate and time left below."""
    table = _table("model", "task", "done", "errors", "score so far")
    for (model, task), planned in progress.planned.items():
        done, failed, passed = progress.counts[model, task]
        answered = done - failed
        so_far = f"{passed / answered:.1%}" if answered and (model, task) in progress.judged else ""
        table.add_row(model, task, f"{done}/{planned}", str(failed) if failed else "", so_far)
    return Group(table, Text(progress_line(progress), style="dim"))


def progress_line(progress: Progress) -> str:
    """How far a run is, in a line."""
    failed = sum(counts[1] for counts in progress.counts.values())
    errors = f", {failed} not answered" if failed else ""
    known = f", {_clock(progress.seconds_left)} left" if progress.done else ""
    return f"{progress.done}/{progress.total}, {progress.rate:.1f} a second{errors}{known}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def score_table(found: dict[str, Any]) -> Table:
    """Prompts kept whole and parts of them (constraints) kept, with intervals, and what was left out."""
    table = _table("task", "model", "judged by", "prompts", "95 %", "parts", "answered", "empty", "cut")
    covered = {(c["model"], c["task"]): c for c in found["coverage"]}
    constraints = {
        (s["model"], s["task"], s["column"]): s["value"] for s in found["scores"] if s["level"] == "constraint"
    }
    for score in found["scores"]:
        if score["level"] != "prompt":
            continue
        model, task, column = score["model"], score["task"], score["column"]
        own = covered[model, task]
        table.add_row(
            task,
            model,
            column,
            f"{score['value']:.1%}",
            f"{100 * score['low']:.1f}-{100 * score['high']:.1f}",
            f"{constraints[model, task, column]:.1%}",
            f"{own['answered']}/{own['asked']}",
            str(own["empty"]),
            str(own["cut"]),
        )
    for text in found["texts"]:
        own = covered[text["model"], text["task"]]
        answered = f"{own['answered']}/{own['asked']}"
        for unit, value in (("tokens", text["token_perplexity"]), ("bits a byte", text["bits_per_byte"])):
            table.add_row(text["task"], text["model"], unit, f"{value:.4g}", "", "", answered)
    scored = {(score["model"], score["task"]) for score in [*found["scores"], *found["texts"]]}
    for (model, task), own in covered.items():
        if (model, task) not in scored:
            answered = f"{own['answered']}/{own['asked']}"
            table.add_row(task, model, "nobody", "", "", "", answered, str(own["empty"]), str(own["cut"]))
    return table


def comparison_table(found: dict[str, Any]) -> Table:
    """Differences with intervals, tests, and what the sample could have shown."""
    table = _table("task", "judged by", "models", "difference", "95 %", "won, lost", "p", "could show")
    for c in found["comparisons"]:
        mark = "*" if c["is_significant"] else ""
        table.add_row(
            c["task"],
            c["column"],
            f"{c['second']} - {c['first']}",
            f"{c['difference']:+.1%}{mark}",
            f"{100 * c['low']:+.1f} to {100 * c['high']:+.1f}",
            f"{c['gained']}, {c['lost']}",
            f"{c['p_value']:.2g}",
            f"{c['smallest']:.1%}",
        )
    return table


def failure_lines(found: dict[str, Any], most: int = 5) -> list[str]:
    """Why requests were not answered, the most frequent reasons first."""
    reasons = Counter(row["error"] for row in found["rows"] if row["error"])
    return [f"{count} not answered: {reason:.200}" for reason, count in reasons.most_common(most)]


def _table(*heads: str) -> Table:
    """Figures stay whole, names are folded: an adapter is told by the end of its version."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold", no_wrap=head not in _NAMES)
    return table
