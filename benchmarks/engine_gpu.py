"""The whole engine on a GPU: throughput against transformers' continuous batching, and decode steps against the floor.

``python benchmarks/engine_gpu.py --json`` measures both shapes; ``--shape small --device cpu`` tries the script.
Random weights; 256 requests of random ids (prompt 100-1024, answer 100-1024 tokens), answers never end by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", default=[], help="default: llama-3-8b and qwen3-0.6b")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--prompt", type=int, nargs=2, default=(100, 1024), metavar=("MIN", "MAX"))
    parser.add_argument("--output", type=int, nargs=2, default=(100, 1024), metavar=("MIN", "MAX"))
    parser.add_argument("--no-peer", action="store_true", help="leave transformers' continuous batching out")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def plan(given: argparse.Namespace, vocabulary: int) -> list[tuple[list[int], int]]:
    """Prompts and answer lengths, the same for everybody."""
    random = np.random.default_rng(0)
    lengths = random.integers(given.prompt[0], given.prompt[1] + 1, given.requests)
    outputs = random.integers(given.output[0], given.output[1] + 1, given.requests)
    return [(random.integers(3, vocabulary, n).tolist(), int(m)) for n, m in zip(lengths, outputs, strict=True)]


async def ours(path: Path, device: Any, requests: list[tuple[list[int], int]]) -> tuple[float, dict[str, Any]]:
    """Output tokens a second, and time per token at fixed batch sizes."""
    from ift_serve.engine.config import EngineConfig
    from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
    from ift_serve.engines.thread import local_engine

    longest = max(len(p) + n for p, n in requests)
    config = EngineConfig(
        model=str(path),
        dtype="bfloat16",
        device=device,
        context_length=longest,
        max_sequences=256,
        max_batch_tokens=8192,
        max_waiting=len(requests),
        prefix_caching=False,
    )

    async def run(engine: Any, number: int, prompt: list[int], count: int) -> None:
        sampling = SamplingParams(temperature=0.0, max_new_tokens=count, ignore_eos=True)
        request = GenerateRequest(request_id=str(number), token_ids=prompt, sampling=sampling, whole=True)
        async for _ in engine.generate(request):
            pass

    async with local_engine(config) as engine:
        begun = time.perf_counter()
        await asyncio.gather(*(run(engine, i, prompt, count) for i, (prompt, count) in enumerate(requests)))
        rate = sum(count for _, count in requests) / (time.perf_counter() - begun)
        steps: dict[str, Any] = {}
        for batch in (1, 8, 64):
            prompts = [(p * 8)[:512] for p, _ in requests[:batch]]
            prompts = [p[: max(4, longest // 2)] for p in prompts]
            count = min(128, longest - len(prompts[0]))
            seconds = []
            for tokens in (1, count):
                begun = time.perf_counter()
                await asyncio.gather(*(run(engine, 10_000 * tokens + i, p, tokens) for i, p in enumerate(prompts)))
                seconds.append(time.perf_counter() - begun)
            steps[str(batch)] = {
                "ms_per_token": 1e3 * (seconds[1] - seconds[0]) / max(1, count - 1),
                "cached_tokens": len(prompts) * (len(prompts[0]) + count // 2),
            }
    return rate, steps


def floors(steps: dict[str, Any], shape: Any, weights: float, copy_gb: float) -> None:
    """Time to read weights, keys and values once at the copy rate, beside each step."""
    head = shape.hidden // shape.heads
    per_token = 2 * 2 * shape.layers * shape.key_value_heads * head
    for step in steps.values():
        step["floor_ms"] = (weights + step["cached_tokens"] * per_token) / copy_gb / 1e6
        step["times_floor"] = round(step["ms_per_token"] / step["floor_ms"], 2)
        step["ms_per_token"], step["floor_ms"] = round(step["ms_per_token"], 3), round(step["floor_ms"], 3)


def continuous_batching(path: Path, device: str, requests: list[tuple[list[int], int]]) -> float:
    """Transformers' own, on the same requests, output tokens a second."""
    from peers import ContinuousBatches, load

    from ift_serve.cli.bench import Request

    peer = ContinuousBatches(load(path, "bfloat16").to(device))
    timing = peer.run([Request(tuple(prompt), count) for prompt, count in requests], 256)
    return timing.tokens / timing.seconds


def measure(name: str, given: argparse.Namespace, copy_gb: float) -> dict[str, Any]:
    """One shape."""
    import torch
    from models import SHAPES, build

    shape = SHAPES[name]
    requests = plan(given, shape.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        path = build(name, Path(folder) / "model", "bfloat16")
        weights = sum(f.stat().st_size for f in path.glob("*.safetensors"))
        rates, steps = list[float](), dict[str, float]()
        for _ in range(3):
            rate, steps = asyncio.run(ours(path, given.device, requests))
            rates.append(rate)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        floors(steps, shape, weights, copy_gb)
        peer = None if given.no_peer else continuous_batching(path, given.device, requests)
    rate = statistics.median(rates)
    return {
        "shape": name,
        "tokens_per_second": round(rate, 1),
        "rounds": [round(r, 1) for r in rates],
        "transformers_cb": None if peer is None else round(peer, 1),
        "times_transformers_cb": None if peer is None else round(rate / peer, 2),
        "steps": steps,
    }


def main() -> int:
    """The command."""
    given = arguments()
    import torch
    from gpu_timing import ceilings

    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing was measured (--device cpu --shape small tries the script)", file=sys.stderr)
        return 2
    copy = ceilings().copy_gb_per_second if given.device == "cuda" else 20.0
    report = {
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu: not GPU figures",
        "copy_gb_per_second": copy,
        "shapes": [measure(name, given, copy) for name in given.shape or ("llama-3-8b", "qwen3-0.6b")],
    }
    print(json.dumps(report) if given.json else json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
