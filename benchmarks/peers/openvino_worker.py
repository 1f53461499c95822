"""``openvino_worker.py MODEL THREADS``: OpenVINO GenAI's continuous batching, in its own environment.

MODEL is a directory that ``optimum-cli export openvino`` has written.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

_CACHE_GB = 2


def _pipeline(model: str, threads: int) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = _CACHE_GB
    scheduler.max_num_seqs = 64
    scheduler.max_num_batched_tokens = 512
    scheduler.enable_prefix_caching = False
    return genai.ContinuousBatchingPipeline(
        model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    )


def _run(pipeline: Any, prompts: list[list[int]], new_tokens: list[int], concurrency: int) -> dict[str, float]:
    """All requests, at most so many in the pipeline at once."""
    waiting = list(range(len(prompts)))
    running: list[Any] = []
    tokens = 0
    begun = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < concurrency:
            index = waiting.pop(0)
            config = genai.GenerationConfig()
            config.max_new_tokens = config.min_new_tokens = new_tokens[index]
            config.ignore_eos, config.do_sample = True, False
            config.apply_chat_template = False
            ids = ov.Tensor(np.array([prompts[index]], dtype=np.int64))
            running.append(pipeline.add_request(index, ids, config))
        pipeline.step()
        for handle in [handle for handle in running if handle.get_status() != genai.GenerationStatus.RUNNING]:
            tokens += sum(len(output.generated_ids) for output in handle.read_all())
            running.remove(handle)
    return {"seconds": time.perf_counter() - begun, "tokens": tokens}


def main() -> None:
    """Answer each line."""
    pipeline = _pipeline(sys.argv[1], int(sys.argv[2]))
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_run(pipeline, asked["prompts"], asked["new_tokens"], asked["concurrency"])), flush=True)


if __name__ == "__main__":
    main()
