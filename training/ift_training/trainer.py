"""transformers' Trainer over an instruction model: exact normalisation, losses logged apart, adapter checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from ift_serve.modeling.adapters.config import IFT_WEIGHTS, PEFT_WEIGHTS, IftConfig
from ift_serve.modeling.adapters.writer import write_adapter
from ift_training.build import Built, adapter_tensors, build_model, load_adapter_tensors
from ift_training.collator import Collator
from ift_training.losses.ewc import EwcPenalty
from ift_training.losses.next_token import IGNORED
from ift_training.model.instruction_model import InstructionModel, judged_count, represented
from ift_training.settings import TrainerSettings

_TRAINING_STATE = "training_state.safetensors"
_NOT_IN_ADAPTER = ("balance.", "projection.")


class _TellEpoch(TrainerCallback):  # type: ignore[misc]
    """Lets the collator know the epoch, which decides what is hidden."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._collator.epoch = int((state.epoch or 0.0) + 1e-6)


class InstructionTrainer(Trainer):  # type: ignore[misc]
    """Losses are sums over a batch divided by counts over the whole optimiser step, on all processes.

    So the gradient is the same however a step's examples are cut into batches. A checkpoint is an adapter directory
    with what else a resumed run needs beside it.
    """

    def __init__(self, *, built: Built, settings: TrainerSettings, **options: Any) -> None:
        super().__init__(model=built.model, **options)
        self.built = built
        self.settings = settings
        # The division by counts replaces the one by the number of accumulated batches.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        ewc = settings.losses.ewc
        self._penalty = EwcPenalty(built.model, ewc.fisher, ewc.weight) if ewc.weight and ewc.fisher else None
        self._parts: dict[str, Tensor] = {}
        self._steps_logged = 0

    @property
    def instruction_model(self) -> InstructionModel:
        """What is trained, unwrapped."""
        found: InstructionModel = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return found

    def counts(self, batch: dict[str, Tensor]) -> Tensor:
        """``[K + 2]`` float64: targets of each task, judged sequences, represented sequences."""
        model = self.built.model
        tokens = model.tokens(batch["input_ids"], batch["segments"], batch["sequence"], batch["tasks"].shape[0])
        tasks = batch["tasks"][batch["sequence"]][batch["labels"] != IGNORED]
        kinds = model.balance.get_buffer("weights").shape[0]
        targets = torch.bincount(tasks, minlength=kinds).double()
        rest = [judged_count(batch["judged"]), int(represented(tokens, batch["judged"]).sum())]
        return torch.cat((targets, torch.tensor(rest, dtype=torch.float64, device=targets.device)))

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """Counts over all batches of the step on all processes, in place of Trainer's count of labels."""
        if not batch_samples:
            return None
        total = torch.stack([self.counts(batch).cpu() for batch in batch_samples]).sum(0).to(device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total[None]).sum(0)
        return total

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This batch's share of the step's loss, times the number of processes, over which gradients are averaged."""
        counts = self.counts(inputs)
        totals = counts if num_items_in_batch is None else num_items_in_batch.to(counts.device)
        output = model(**inputs)
        parts = self.parts(output, counts, totals)
        total = torch.stack(list(parts.values())).sum()
        if model.training:
            for name, value in parts.items():
                if self._steps_logged < 0:
                    self._steps_logged = self.state.global_step
                self._parts[name] = self._parts.get(name, torch.zeros((), device=value.device)) + value.detach()
            total = total * self.args.world_size
        return (total, output) if return_outputs else total

    def parts(self, output: Any, counts: Tensor, totals: Tensor) -> dict[str, Tensor]:
        """Weighted parts of the loss by name."""
        weights = self.settings.losses
        counts, totals = counts.float(), totals.float()
        balance = self.built.model.balance
        next_token = balance(output.next_token, counts[:-2], totals[:-2], output.log_variances)
        found = {"next_token": weights.next_token * next_token}
        if weights.instruction and output.instruction is not None:
            found["instruction"] = weights.instruction * output.instruction / totals[-2].clamp_min(1)
        if weights.representation and output.representation is not None:
            found["representation"] = weights.representation * output.representation / totals[-1].clamp_min(1)
        if self._penalty is not None:
            # By the share of targets, which adds up to one over the step.
            found["ewc"] = self._penalty() * counts[:-2].sum() / totals[:-2].sum().clamp_min(1)
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each part's mean over the steps since the last line."""
        steps = self.state.global_step - self._steps_logged
        if "loss" in logs and steps > 0 and self._parts:
            for name, value in self._parts.items():
                summed = value[None]
                if self.args.world_size > 1:
                    summed = self.accelerator.gather(summed)
                logs[f"loss_{name}"] = round(float(summed.sum()) / steps, 6)
            self._parts.clear()
            self._steps_logged = self.state.global_step
        super().log(logs, start_time)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss only; answers are judged elsewhere."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a rate for the low-rank part and one for everything else."""
        if getattr(self, "optimizer", None) is None:
            chosen = self.model if model is None else model
            low_rank, others = list[nn.Parameter](), list[nn.Parameter]()
            for name, parameter in chosen.named_parameters():
                if parameter.requires_grad:
                    (low_rank if "lora_" in name else others).append(parameter)
            groups = [
                {"params": low_rank, "lr": self.settings.learning_rate},
                {"params": others, "lr": self.settings.component_learning_rate, "weight_decay": 0.0},
            ]
            self.optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]], lr=self.settings.learning_rate,
                weight_decay=self.settings.weight_decay,
            )  # fmt: skip
        return self.optimizer

    def write(self, directory: Path, card: str = "", recipe: dict[str, Any] | None = None, **fields: Any) -> None:
        """Write the adapter as it is now. ``fields`` go into its configuration: scores, template_fingerprint."""
        model = self.instruction_model
        peft_fields, tensors, extras = adapter_tensors(model)
        components = self.settings.components
        config = IftConfig(base=self.built.reference, components=components, recipe=recipe or {}, **fields)
        write_adapter(directory, peft_fields=peft_fields, peft_tensors=tensors, config=config, extras=extras, card=card)

    def restore(self, directory: Path) -> None:
        """Put the weights of a checkpoint or adapter directory back, extras and training state with them."""
        model = self.instruction_model
        lora, extras = directory / PEFT_WEIGHTS, directory / IFT_WEIGHTS
        load_adapter_tensors(
            model, load_file(lora) if lora.exists() else {}, load_file(extras) if extras.exists() else {}
        )
        state = directory / _TRAINING_STATE
        if state.exists():
            model.load_state_dict(load_file(state), strict=False)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:
            return
        directory = Path(output_dir or self.args.output_dir)
        self.write(directory)
        state = self.instruction_model.state_dict()
        kept = {n: t.detach().cpu().contiguous() for n, t in state.items() if n.startswith(_NOT_IN_ADAPTER)}
        if kept:
            save_file(kept, directory / _TRAINING_STATE)

    def _inner_training_loop(self, *args: Any, **options: Any) -> Any:
        self._parts.clear()
        self._steps_logged = -1
        return super()._inner_training_loop(*args, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.restore(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self.restore(Path(self.state.best_model_checkpoint))


def training_arguments(
    settings: TrainerSettings, output: Path, seed: int, *, progress: bool = True, **options: Any
) -> TrainingArguments:
    """The settings as transformers names them; ``options`` are more of its own."""
    given: dict[str, Any] = {
        "output_dir": str(output), "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size, "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate, "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1, "warmup_steps": settings.warmup,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        "weight_decay": settings.weight_decay, "max_grad_norm": settings.max_grad_norm,
        "bf16": settings.precision == "bfloat16", "seed": seed, "data_seed": seed, "report_to": "none",
        "save_strategy": "steps" if settings.save_steps else "no", "save_steps": settings.save_steps or 500,
        "logging_steps": 10, "remove_unused_columns": False, "disable_tqdm": not progress,
        "use_cpu": not torch.cuda.is_available(), "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False, "dataloader_pin_memory": torch.cuda.is_available(),
    }  # fmt: skip
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
    from ift_serve.modeling.tokenizer import load_tokenizer

    built = built or build_model(base_directory, settings, tasks, seed)
    wrap(built.model)
    tokenizer: Any = load_tokenizer(base_directory)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    chosen = settings.masking.token
    mask_token = chosen if chosen is not None else getattr(tokenizer, "mask_token_id", None)
    collator = Collator(
        padding=int(padding), mask_token=int(padding if mask_token is None else mask_token), masking=settings.masking,
        packing=settings.packing, max_length=max_length,
        judges=settings.losses.instruction > 0, seed=seed,
    )  # fmt: skip
    arguments = training_arguments(settings, output, seed, progress=progress, **options)
    return InstructionTrainer(
        built=built, settings=settings, args=arguments, train_dataset=dataset, eval_dataset=validation,
        data_collator=collator, callbacks=[_TellEpoch(collator), *callbacks],
    )  # fmt: skip
