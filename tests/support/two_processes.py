"""One of two processes that train a step together; the first prints what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / part) for part in ("", "training", "kernels")]

from ift_training.settings import LossSettings  # noqa: E402
from tests.support.training import examples, grad_norm, settings, trainer  # noqa: E402

run = trainer(
    Path(sys.argv[1]), settings(batch_size=4, losses=LossSettings(representation=0.1)), examples(8), Path(sys.argv[2])
)
run.train()
if run.args.process_index == 0:
    print(json.dumps({"grad_norm": grad_norm(run)}))
