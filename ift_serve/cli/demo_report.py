"""The end of the demo: base model and new adapter, evaluated as by `ift-serve eval`, and the page of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def write_demo_report(
    port: int, adapter: str, folder: Path, console: Console, limit: int | None = None
) -> dict[str, Any]:
    """Ask both what the task ``adherence`` holds, ``limit`` prompts at most; the report, which is in ``folder`` too.

    Raises RuntimeError where requests were not answered.
    """
    from rich.live import Live

    from ift_serve.client import AsyncClient
    from ift_serve.evaluation.reporting.document import document, write_document
    from ift_serve.evaluation.reporting.page import write_page
    from ift_serve.evaluation.reporting.tables import comparison_table, live_table, score_table
    from ift_serve.evaluation.run import BASE, Plan, evaluate
    from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
    from ift_serve.evaluation.serving.result_store import ResultStore
    from ift_serve.evaluation.tasks.adherence import Adherence

    plan = Plan([Adherence()], [BASE, adapter], DecodingSettings(sampling={"temperature": 0.0}), limit=limit)

    async def run(live: Live) -> dict[str, Any]:
        async with AsyncClient(f"127.0.0.1:{port}", retries=0) as client:
            with ResultStore() as store:
                shown = live.update if console.is_terminal else None
                result = await evaluate(
                    client, plan, store, shown=lambda progress: shown(live_table(progress)) if shown else None
                )
        return document(result, plan)

    with Live(console=console, refresh_per_second=4, transient=True) as live:
        found = asyncio.run(run(live))
    missing = [row["error"] for row in found["rows"] if row["error"]]
    if missing:
        raise RuntimeError(f"{len(missing)} requests of the evaluation were not answered: {missing[0]}")
    write_document(found, folder / "report.json")
    write_page(found, folder / "report.html")
    console.print(score_table(found))
    console.print(comparison_table(found))
    return found
