"""How fast does the trainer train, beside transformers' Trainer with PEFT's LoRA, and TRL's where it is installed?

``python benchmarks/training.py --shape smollm2-135m --json``. Random weights and ids, the same sequences (64-256
tokens, the last third a response that alone is a target), LoRA of rank 16 on every linear layer, float32, in turns. The
losses of the first step are reported too: with a fresh adapter they must be the base model's, whoever computes them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

RANK = 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL = {
    "segment_embedding": True,
    "instruction_embedding": 8,
    "instruction_encoder": 128,
    "two_stream": 64,
    "attention_bias": True,
    "attention_gain": True,
    "instruction_gate": 16,
    "reasoning_pathways": 96,
    "adherence_head": 64,
}
IGNORED = -100


def arguments() -> argparse.Namespace:
    """The command line."""
    from models import SHAPES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="measured steps of each way in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="ways to run; default: all")
    parser.add_argument("--json", action="store_true", help="JSON only, on standard output")
    return parser.parse_args()


def sequences(count: int, vocabulary: int) -> list[Any]:
    """Random sequences, instruction first and response last."""
    from ift_training.data.encode import EncodedExample

    rng = random.Random(0)
    found = []
    for _ in range(count):
        length = rng.randint(64, 256)
        response = length // 3
        ids = [rng.randrange(vocabulary // 8, vocabulary) for _ in range(length)]
        segments = bytes([0, *[1] * (length - response - 2), 0, *[3] * response])
        found.append(EncodedExample(ids, segments, bytes([0] * (length - response) + [1] * response), 0, "task"))
    return found


def plain(example: Any) -> dict[str, list[int]]:
    """The same sequence as other trainers take it."""
    labels = [i if seen else IGNORED for i, seen in zip(example.input_ids, example.labels_mask, strict=True)]
    return {"input_ids": example.input_ids, "labels": labels, "attention_mask": [1] * len(labels)}


class Stopwatch:
    """Made into a callback of each trainer: when its steps end."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.loss = 0.0

    def callback(self) -> Any:
        """transformers' class is imported late."""
        from transformers import TrainerCallback

        watch = self

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch.times.append(time.perf_counter())

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if state.global_step == 1 and "loss" in logs:
                    watch.loss = logs["loss"]

        return Watch()

    @property
    def steps(self) -> list[float]:
        """Seconds of every step but the first."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def common(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments that all trainers share. The first step warms up."""
    return {
        "max_steps": given.steps + 1,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "seed": 0,
        "data_seed": 0,
    }


def ours(given: argparse.Namespace, model: Path, data: list[Any], folder: Path, **settings: Any) -> Stopwatch:
    """This project's trainer."""
    from ift_training.assemble import make_trainer
    from ift_training.settings import LoraSettings, TrainerSettings

    watch = Stopwatch()
    chosen = TrainerSettings(
        lora=LoraSettings(rank=RANK, alpha=RANK, targets=TARGETS),
        batch_size=given.batch_size,
        max_grad_norm=1.0,
        **settings,
    )
    trainer = make_trainer(
        str(model),
        chosen,
        data,
        output=folder,
        max_length=256,
        tasks=["task"],
        callbacks=[watch.callback()],
        progress=False,
        **{k: v for k, v in common(given).items() if k not in ("seed", "disable_tqdm")},
    )
    trainer.train()
    return watch


def lora_config() -> Any:
    """PEFT's settings of the peers."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, task_type="CAUSAL_LM")


def base(model: Path) -> Any:
    """The model as the peers load it."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def transformers_peft(given: argparse.Namespace, model: Path, data: list[Any], folder: Path) -> Stopwatch:
    """transformers' Trainer, PEFT's LoRA, a padding collator."""
    from peft import get_peft_model
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    watch = Stopwatch()
    trainer = Trainer(
        model=get_peft_model(base(model), lora_config()),
        args=TrainingArguments(output_dir=str(folder), per_device_train_batch_size=given.batch_size, **common(given)),
        train_dataset=[plain(e) for e in data],
        data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(model), label_pad_token_id=IGNORED),
        callbacks=[watch.callback()],
    )
    trainer.train()
    return watch


def trl(given: argparse.Namespace, model: Path, data: list[Any], folder: Path) -> Stopwatch:
    """TRL's SFTTrainer on the same encoded sequences."""
    import pyarrow
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    watch = Stopwatch()
    rows = [plain(e) for e in data]
    table = pyarrow.table({name: [row[name] for row in rows] for name in ("input_ids", "labels")})
    dataset = Dataset(InMemoryTable(table), fingerprint="sequences")
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=given.batch_size,
        max_length=256,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **common(given),
    )
    trainer = SFTTrainer(
        model=base(model),
        args=config,
        train_dataset=dataset,
        peft_config=lora_config(),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[watch.callback()],
    )
    trainer.train()
    return watch


def ways(given: argparse.Namespace) -> dict[str, Callable[..., Stopwatch]]:
    """What is measured, by name."""
    import importlib.util

    found: dict[str, Callable[..., Stopwatch]] = {
        "ours": ours,
        "ours_packed": lambda *a: ours(*a, packing=True),
        "ours_all_components": lambda *a: ours(*a, components=ALL, losses={"instruction": 0.2}),
        "transformers_peft": transformers_peft,
    }
    if importlib.util.find_spec("trl") is not None:
        found["trl"] = trl
    return {name: way for name, way in found.items() if not given.only or name in given.only}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Trainers print their logs; standard output is for the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def measure(given: argparse.Namespace, model: Path, folder: Path) -> dict[str, Any]:
    """All ways, in turns."""
    from transformers import AutoConfig

    vocabulary = int(AutoConfig.from_pretrained(model).vocab_size)
    data = sequences(given.batch_size * (given.steps + 1), vocabulary)
    tokens = statistics.mean(len(e.input_ids) for e in data) * given.batch_size
    seconds: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    for _ in range(given.rounds):
        for name, way in ways(given).items():
            watch = way(given, model, data, folder / name)
            seconds.setdefault(name, []).extend(watch.steps)
            losses[name] = watch.loss
            print(f"{name}: {statistics.median(watch.steps):.3f} s a step", file=sys.stderr, flush=True)
    rates = {name: round(tokens / statistics.mean(values), 1) for name, values in seconds.items()}
    peer = rates.get("transformers_peft")
    return {
        "shape": given.shape,
        "batch_size": given.batch_size,
        "tokens_per_second": rates,
        "seconds_per_step": {name: [round(v, 3) for v in values] for name, values in seconds.items()},
        "over_transformers_peft": {name: round(rate / peer, 3) for name, rate in rates.items()} if peer else {},
        "loss_of_the_first_step": losses,
    }


def main() -> int:
    """The command."""
    given = arguments()
    from models import build

    with tempfile.TemporaryDirectory() as folder, quiet():
        model = build(given.shape, Path(folder) / "model", "float32")
        report = measure(given, model, Path(folder))
    print(json.dumps(report, indent=None if given.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
