"""What adapters cost: mixed batches against the base alone, many residents against few, loading beside decoding.

``python benchmarks/adapters.py --shape smollm2-135m --json``. Random weights and adapters, real directories and the
real engine process; 64 requests of random ids (prompt 16-256, answer 16-128 tokens, seed 0), concurrency 32.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

RANKS = (4, 8, 16, 32, 64, 16, 32, 64)
EVEN_RANK = 16


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--residents", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peer-rounds", type=int, default=1, help="of PEFT's own mixed batches, which take long")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def write_adapter(directory: Path, metadata: Any, rank: int, seed: int, components: Any = None) -> Path:
    """LoRA on every linear layer, and the ``components`` (a ``ComponentsConfig``), random."""
    import torch
    from peft import LoraConfig

    from ift_serve.modeling.adapter_format.config import BaseReference, IftConfig
    from ift_serve.modeling.adapter_format.reader import shape_of
    from ift_serve.modeling.adapter_format.writer import write_adapter as write
    from ift_serve.modeling.components.config import ComponentsConfig
    from ift_serve.modeling.components.instruction_components import InstructionComponents

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for path in sorted(metadata.linears):
        if path.rsplit(".", 1)[-1] in targets:
            rows, columns = metadata.shapes[f"{path}.weight"]
            a = torch.randn(rank, columns, generator=generator) / columns
            b = torch.randn(rows, rank, generator=generator) / rank
            tensors[f"base_model.model.{path}.lora_A.weight"] = a.bfloat16()
            tensors[f"base_model.model.{path}.lora_B.weight"] = b.bfloat16()
    base = BaseReference(fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=shape_of(metadata))
    fields = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, task_type="CAUSAL_LM").to_dict()
    components = components or ComponentsConfig()
    modules = InstructionComponents(components, shape_of(metadata)).state_dict()
    extras = {name: torch.randn(tensor.shape, generator=generator) * 0.1 for name, tensor in modules.items()}
    config = IftConfig(base=base, components=components)
    write(directory, peft_fields=fields, peft_tensors=tensors, config=config, extras=extras, card="")
    return directory


class Engine:
    """One engine process and the requests to send it."""

    def __init__(self, client: Any, requests: list[Any], concurrency: int) -> None:
        self.client = client
        self._requests = requests
        self._concurrency = concurrency
        self._count = 0

    async def _one(self, request: Any, adapter: str, gaps: list[float]) -> int:
        from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams

        self._count += 1
        sampling = SamplingParams(temperature=0.0, max_new_tokens=request.new_tokens, ignore_eos=True)
        message = GenerateRequest(
            request_id=str(self._count), token_ids=list(request.token_ids), sampling=sampling, adapter=adapter
        )
        count, last = 0, 0.0
        async for output in self.client.generate(message):
            now = time.perf_counter()
            if last and output.token_ids:
                gaps.append(now - last)
            last = now
            count += len(output.token_ids)
        return count

    async def run(self, adapter_of: Callable[[int], str]) -> tuple[float, list[float]]:
        """Tokens a second, and the gaps between a candidate's tokens in seconds."""
        waiting = list(enumerate(self._requests))[::-1]
        gaps: list[float] = []
        tokens = 0

        async def worker() -> None:
            nonlocal tokens
            while waiting:
                index, request = waiting.pop()
                made = await self._one(request, adapter_of(index), gaps)
                tokens += made

        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(self._concurrency)))
        return tokens / (time.perf_counter() - begun), gaps


def p99(gaps: list[float]) -> float:
    """Milliseconds."""
    return round(1e3 * sorted(gaps)[int(0.99 * (len(gaps) - 1))], 2)


async def measure(given: argparse.Namespace, model: Path, folder: Path) -> dict[str, Any]:
    """All parts, in turns."""
    import peers
    import torch
    from transformers import AutoConfig

    from ift_serve.cli.bench import plan
    from ift_serve.engine.config import EngineConfig
    from ift_serve.engines.process import engine_process
    from ift_serve.modeling.adapter_format.base import BaseMetadata

    metadata = BaseMetadata.of_directory(model)
    config = AutoConfig.from_pretrained(model)
    requests = plan(given.requests, (16, 256), (16, 128), int(config.vocab_size), 2048, 0)
    eight = [write_adapter(folder / f"a{i}", metadata, rank, i) for i, rank in enumerate(RANKS)]
    many = [write_adapter(folder / f"m{i}", metadata, RANKS[i % 8], 100 + i) for i in range(given.residents)]
    even = [write_adapter(folder / f"e{i}", metadata, EVEN_RANK, 300 + i) for i in range(given.residents)]
    engine_config = EngineConfig(
        model=str(model),
        dtype="bfloat16",
        threads=given.threads,
        max_waiting=given.requests,
        adapter_slots=32,
        prefix_caching=False,
        context_length=512,
    )
    found: dict[str, list[float]] = {}
    latency: dict[str, list[float]] = {}
    async with engine_process(engine_config) as bare, engine_process(engine_config) as adapted:
        base, mixed = (Engine(client, requests, given.concurrency) for client in (bare, adapted))
        for path in (*eight, *many, *even):
            await adapted.load_adapter(path.name, str(path))
        await base.run(lambda i: "")
        await mixed.run(lambda i: f"a{i % 8}")

        async def part(name: str, engine: Engine, adapter_of: Callable[[int], str]) -> None:
            rate, gaps = await engine.run(adapter_of)
            found.setdefault(name, []).append(round(rate, 1))
            latency.setdefault(name, []).append(p99(gaps))

        async def churn() -> None:
            while True:
                await adapted.load_adapter("churned", str(eight[4]))
                await adapted.unload_adapter("churned")

        peer = peers.AdapterBatches(peers.load(model, "bfloat16"), {path.name: path for path in eight})
        names = ["" if i % 9 == 8 else f"a{i % 9}" for i in range(given.requests)]
        torch.set_num_threads(given.threads)
        for number in range(given.rounds):
            if number < given.peer_rounds:
                timing = peer.run_mixed(requests, given.concurrency, [name or peer.BASE for name in names])
                found.setdefault("peft_eight_and_base", []).append(round(timing.rate, 1))
            await part("base", base, lambda i: "")
            await part("loaded_unused", mixed, lambda i: "")
            await part("eight_and_base", mixed, lambda i: names[i])
            await part("eight", mixed, lambda i: f"a{i % 8}")
            await part("many", mixed, lambda i: f"m{i % given.residents}")
            await part("eight_of_rank_16", mixed, lambda i: f"e{i % 8}")
            await part("many_of_rank_16", mixed, lambda i: f"e{i % given.residents}")
            turning = asyncio.create_task(churn())
            await part("while_loading", mixed, lambda i: f"a{i % 8}")
            turning.cancel()
            await asyncio.wait({turning})
    rates = {name: statistics.median(values) for name, values in found.items()}
    gaps = {name: statistics.median(values) for name, values in latency.items()}
    peft = rates.get("peft_eight_and_base")
    return {
        "shape": given.shape,
        "tokens_per_second": rates,
        "rounds": found,
        "p99_gap_ms": gaps,
        "unused_over_base": round(rates["loaded_unused"] / rates["base"], 3),
        "mixed_over_base": round(rates["eight_and_base"] / rates["base"], 3),
        "mixed_over_peft": round(rates["eight_and_base"] / peft, 2) if peft else None,
        "many_over_eight": round(rates["many"] / rates["eight"], 3),
        "many_over_eight_of_rank_16": round(rates["many_of_rank_16"] / rates["eight_of_rank_16"], 3),
        "p99_while_loading_over_without": round(gaps["while_loading"] / gaps["eight"], 2),
    }


def main() -> int:
    """The command."""
    given = arguments()
    from models import build

    with tempfile.TemporaryDirectory() as folder:
        model = build(given.shape, Path(folder) / "model", "bfloat16")
        report = asyncio.run(measure(given, model, Path(folder)))
    print(json.dumps(report, indent=None if given.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
