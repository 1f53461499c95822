"""Puts a trainer together: the model, what collates its batches, the settings as transformers names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments

from ift_training.build import Built, build_model
from ift_training.collator import Collator, WithOthers
from ift_training.model.instruction_model import InstructionModel
from ift_training.settings import MaskingSettings, TrainerSettings
from ift_training.trainer import InstructionTrainer


class _TellEpoch(TrainerCallback):  # type: ignore[misc]
    """Lets the collator know the epoch, which decides what is hidden."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._collator.epoch = int((state.epoch or 0.0) + 1e-6)


def training_arguments(
    settings: TrainerSettings, output: Path, seed: int, *, progress: bool = True, **options: Any
) -> TrainingArguments:
    """The settings as transformers names them; ``options`` are more of its own."""
    given: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.precision == "bfloat16",
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "disable_tqdm": not progress,
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    return TrainingArguments(**{**given, **options})


def make_trainer(
    base_directory: str,
    settings: TrainerSettings,
    dataset: Dataset[Any] | Sequence[Any],
    *,
    output: Path,
    seed: int = 0,
    max_length: int = 512,
    tasks: list[str],
    validation: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    progress: bool = True,
    built: Built | None = None,
    wrap: Callable[[InstructionModel], None] = lambda model: None,
    **options: Any,
) -> InstructionTrainer:
    """A trainer, ready for ``train()``.

    dataset: of :class:`ift_training.data.encode.EncodedExample`. tasks: names by the examples' ``task``. options:
    further TrainingArguments. wrap: called with the model before anything shards it. Raises ValueError.
    """
    from ift_serve.text.tokenizer import load_tokenizer

    built = built or build_model(base_directory, settings, tasks, seed)
    wrap(built.model)
    tokenizer: Any = load_tokenizer(base_directory)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    chosen = settings.masking.token
    mask_token = chosen if chosen is not None else getattr(tokenizer, "mask_token_id", None)
    judges = settings.losses.instruction > 0

    def collator(masking: MaskingSettings) -> Collator:
        return Collator(
            padding=int(padding),
            mask_token=int(padding if mask_token is None else mask_token),
            masking=masking,
            packing=settings.packing,
            max_length=max_length,
            judges=judges,
            seed=seed,
        )

    training = collator(settings.masking)
    arguments = training_arguments(settings, output, seed, progress=progress, **options)
    return InstructionTrainer(
        built=built,
        settings=settings,
        args=arguments,
        evaluation_collator=collator(MaskingSettings()),
        tasks=tasks,
        train_dataset=WithOthers(dataset, max_length) if judges else dataset,
        eval_dataset=WithOthers(validation, max_length) if judges and validation is not None else validation,
        data_collator=training,
        callbacks=[_TellEpoch(training), *callbacks],
    )
