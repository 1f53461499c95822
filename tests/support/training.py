"""Examples and settings for small training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ift_training.assemble import make_trainer
from ift_training.data.encode import EncodedExample
from ift_training.settings import LoraSettings, LossSettings, TrainerSettings
from ift_training.trainer import InstructionTrainer
from tests.support.adapters import EVERYTHING

TASKS = ["first", "second"]


def examples(count: int, seed: int = 0, *, vocabulary: int = 290) -> list[EncodedExample]:
    """Random texts of unlike lengths, two tasks, some with a violating response."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    found = []
    for index in range(count):
        prompt, response = draw(9, 22), draw(3, 9)
        ids = torch.randint(6, vocabulary, (prompt + response,), generator=generator).tolist()
        segments = bytes([0] + [1] * 6 + [2] * (prompt - 8) + [0] + [3] * response)
        violating = torch.randint(6, vocabulary, (4,), generator=generator).tolist() if index % 3 == 0 else None
        mask = bytes([0] * prompt + [1] * response)
        found.append(EncodedExample(ids, segments, mask, index % 2, TASKS[index % 2], violating))
    return found


def settings(**changes: Any) -> TrainerSettings:
    """Everything on, small."""
    given: dict[str, Any] = {
        "lora": LoraSettings(rank=4),
        "components": EVERYTHING,
        "max_steps": 1,
        "batch_size": 8,
        "warmup": 0.0,
        "losses": LossSettings(instruction=0.5, representation=0.1, task_weights={"second": 2.0}),
        "max_grad_norm": 1e9,
        "schedule": "constant",
    }
    return TrainerSettings(**{**given, **changes})


def trainer(model: Path, chosen: TrainerSettings, data: Any, output: Path, **options: Any) -> InstructionTrainer:
    """A quiet trainer that logs every step."""
    return make_trainer(
        str(model), chosen, data, output=output, tasks=TASKS, progress=False, logging_steps=1, **options
    )


def grad_norm(found: InstructionTrainer) -> float:
    """Of the first step."""
    return float(next(line["grad_norm"] for line in found.state.log_history if "grad_norm" in line))
