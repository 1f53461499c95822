"""How long an evaluation of adherence takes: the embedded model and one adapter, every prompt, over gRPC.

    python benchmarks/eval_adherence.py --json

Server and client share the machine. The adapter has LoRA and every component, with random weights: its answers mean
nothing, their cost does. The goal is 500 prompts or more, base and adapter, in under three minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from components import write_adapters

from ift_serve.client import AsyncClient
from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.process import engine_process
from ift_serve.evaluation.reporting.document import document
from ift_serve.evaluation.run import Plan, evaluate
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig

GOAL_SECONDS, GOAL_PROMPTS = 180.0, 500


async def measure(limit: int | None) -> dict[str, Any]:
    """Ask everything of base and adapter, judge it and make the report, every answer kept in a file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_adapters(folder, BaseMetadata.of_directory(model_path()), 16)
        engine = EngineConfig(model=str(model_path()))
        config = ServerConfig(engine=engine, port=0, metrics_port=None, drain_timeout=5, adapter_roots=[folder])
        server = Server(config, engine_process(config.engine))
        await server.start()
        try:
            async with AsyncClient(f"127.0.0.1:{server.port}", retries=0) as client:
                await client.load_adapter("all", "all")
                settings = DecodingSettings.read({"temperature": 0})
                plan = Plan([Adherence()], ["base", "all"], settings, limit=limit)
                begun = time.perf_counter()
                with ResultStore(folder / "results.sqlite") as store:
                    found = document(await evaluate(client, plan, store), plan)
                seconds = time.perf_counter() - begun
        finally:
            await server.stop()
    prompts = min(covered["answered"] for covered in found["coverage"])
    return {
        "prompts": prompts, "models": len(found["models"]), "seconds": round(seconds, 2),
        "generated_tokens": sum(covered["generated_tokens"] for covered in found["coverage"]),
        "base": next(s["value"] for s in found["scores"] if s["model"] == "base" and s["level"] == "prompt"),
        "passed": prompts >= GOAL_PROMPTS and seconds < GOAL_SECONDS,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--limit", type=int, help="prompts; all without this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = {"cores": os.cpu_count(), "goal_seconds": GOAL_SECONDS} | asyncio.run(measure(options.limit))
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:>18}: {value}")


if __name__ == "__main__":
    main()
