"""What LoRA and the instruction-aware components cost: base, LoRA alone, and all components, in turns.

``python benchmarks/components.py --model DIR --json``. One engine process, 4 callers, fixed work a turn; medians over
the rounds of tokens a second and of the engine's CPU time a token, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

KINDS = ("base", "lora", "components", "all")
PROMPT, INSTRUCTION = 96, range(8, 72)


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model's directory; none: random weights of --shape")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def write_adapters(folder: Path, metadata: Any, rank: int) -> dict[str, Path]:
    """LoRA on every linear layer, every component at its usual size, and both."""
    from adapters import write_adapter

    from ift_serve.modeling.components.config import ComponentsConfig

    everything = ComponentsConfig(
        segment_embedding=True,
        instruction_embedding=16,
        instruction_encoder=128,
        two_stream=64,
        attention_bias=True,
        attention_gain=True,
        instruction_gate=16,
        reasoning_pathways=192,
        temperature_head=64,
        adherence_head=64,
    )
    lora = write_adapter(folder / "lora", metadata, rank, 1)
    whole = write_adapter(folder / "all", metadata, rank, 2, everything)
    alone = write_adapter(folder / "components", metadata, rank, 3, everything)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (alone / name).unlink()
    return {"lora": lora, "all": whole, "components": alone}


async def turn(client: Any, kind: str, given: argparse.Namespace, number: int) -> None:
    """All callers' answers, at once."""
    from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams

    async def caller(index: int) -> None:
        ids = [(7919 * index + 31 * i) % 4000 + 10 for i in range(PROMPT)]
        message = GenerateRequest(
            request_id=f"{kind}-{number}-{index}",
            token_ids=ids,
            segment_ids=bytes(1 if i in INSTRUCTION else 0 for i in range(PROMPT)),
            sampling=SamplingParams(temperature=0.0, max_new_tokens=given.tokens, ignore_eos=True),
            adapter="" if kind == "base" else kind,
        )
        async for _ in client.generate(message):
            pass

    await asyncio.gather(*(caller(index) for index in range(given.callers)))


async def measure(given: argparse.Namespace, model: Path, folder: Path) -> dict[str, Any]:
    """Kinds in turns, so that a machine that slows down slows all of them."""
    import psutil

    from ift_serve.engine.config import EngineConfig
    from ift_serve.engines.process import engine_process
    from ift_serve.modeling.adapter_format.base import BaseMetadata

    config = EngineConfig(
        model=str(model),
        dtype="bfloat16",
        threads=given.threads,
        prefix_caching=False,
        context_length=512,
        total_blocks=256,
    )
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    async with engine_process(config) as client:
        engine = psutil.Process(client.engine_pid)
        for name, path in write_adapters(folder, BaseMetadata.of_directory(model), given.rank).items():
            await client.load_adapter(name, str(path))
        for kind in KINDS:
            await turn(client, kind, given, -1)
        made = given.callers * given.tokens
        for number in range(given.rounds):
            for kind in KINDS:
                before, begun = sum(engine.cpu_times()[:2]), time.perf_counter()
                await turn(client, kind, given, number)
                rates[kind].append(made / (time.perf_counter() - begun))
                cpu[kind].append(1e3 * (sum(engine.cpu_times()[:2]) - before) / made)
    rate = {kind: statistics.median(values) for kind, values in rates.items()}
    spent = {kind: statistics.median(values) for kind, values in cpu.items()}
    return {
        "model": model.name,
        "callers": given.callers,
        "rank": given.rank,
        "tokens_per_second": {kind: round(value, 1) for kind, value in rate.items()},
        "cpu_ms_a_token": {kind: round(value, 3) for kind, value in spent.items()},
        "rate_over_base": {kind: round(rate[kind] / rate["base"], 3) for kind in KINDS[1:]},
        "cpu_over_base": {kind: round(spent[kind] / spent["base"], 3) for kind in KINDS[1:]},
    }


def main() -> int:
    """The command."""
    given = arguments()
    from models import build

    with tempfile.TemporaryDirectory() as folder:
        model = given.model or build(given.shape, Path(folder) / "model", "bfloat16")
        report = asyncio.run(measure(given, model, Path(folder)))
    print(json.dumps(report if given.json else {"benchmark": "components", **report}, indent=None if given.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
