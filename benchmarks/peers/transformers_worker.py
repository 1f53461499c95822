"""``transformers_worker.py MODEL THREADS``: transformers' ``generate`` in padded batches, told by lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from ift_serve.cli.bench import Request
from peers.in_process import StaticBatches, load

torch.set_num_threads(int(sys.argv[2]))
# bf16 only where the processor multiplies it: elsewhere transformers would be many times slower than it is in float32.
_DTYPE = "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
peer = StaticBatches(load(Path(sys.argv[1]), _DTYPE))
print("{}", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    requests = [Request(tuple(p), n) for p, n in zip(asked["prompts"], asked["new_tokens"], strict=True)]
    timing = peer.run(requests, asked["concurrency"])
    print(json.dumps({"seconds": timing.seconds, "tokens": timing.tokens}), flush=True)
