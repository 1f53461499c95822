"""Tables for the terminal: while a run goes on, and of what came out."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ift_serve.evaluation.run import Progress


def live_table(progress: Progress) -> Table:
    """Done, failed and score so far by model and task; rate and time left in the caption."""
    table = Table("model", "task", "done", "errors", "score so far")
    for (model, task), planned in progress.planned.items():
        done, failed, passed = progress.counts[model, task]
        answered = done - failed
        so_far = f"{passed / answered:.1%}" if answered and task != "perplexity" else ""
        table.add_row(model, task, f"{done}/{planned}", str(failed) if failed else "", so_far)
    left = progress.seconds_left
    known = f", {left // 60:.0f}:{left % 60:02.0f} left" if left != float("inf") else ""
    table.caption = f"{progress.done}/{progress.total}, {progress.rate:.1f} a second{known}"
    return table


def score_table(found: dict[str, Any]) -> Table:
    """Prompts and constraints kept, with intervals, and what was left out."""
    table = Table("task", "model", "judged by", "prompts kept", "constraints kept", "answered", "empty", "cut")
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
            f"{score['value']:.1%} ({score['low']:.1%} to {score['high']:.1%})",
            f"{constraints[model, task, column]:.1%}",
            f"{own['answered']}/{own['asked']}",
            str(own["empty"]),
            str(own["cut"]),
        )
    for text in found["texts"]:
        own = covered[text["model"], text["task"]]
        value = f"{text['token_perplexity']:.3f} a token, {text['bits_per_byte']:.4f} bits a byte"
        table.add_row(text["task"], text["model"], "perplexity", value, "", f"{own['answered']}/{own['asked']}", "", "")
    return table


def comparison_table(found: dict[str, Any]) -> Table:
    """Differences with intervals, tests, and what the sample could have shown."""
    table = Table("task", "judged by", "models", "difference", "gained / lost", "p (McNemar)", "could show")
    for c in found["comparisons"]:
        mark = "*" if c["is_significant"] else ""
        table.add_row(
            c["task"],
            c["column"],
            f"{c['second']} - {c['first']}",
            f"{c['difference']:+.1%}{mark} ({c['low']:+.1%} to {c['high']:+.1%})",
            f"{c['gained']} / {c['lost']}",
            f"{c['p_value']:.2g}",
            f"{c['smallest']:.1%}",
        )
    return table
