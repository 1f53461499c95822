"""transformers' Trainer over an instruction model: exact normalisation, losses logged apart, adapter checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from ift_serve.modeling.adapter_format.config import IFT_WEIGHTS, PEFT_WEIGHTS, IftConfig
from ift_serve.modeling.adapter_format.writer import write_adapter
from ift_training import checkpoint
from ift_training.build import Built
from ift_training.collator import Collator
from ift_training.evaluation.best import LOSS, METRIC, BestWeights
from ift_training.losses.ewc import EwcPenalty, trainable
from ift_training.losses.next_token import IGNORED
from ift_training.model.instruction_model import InstructionModel, TrainingOutput, judged_count, represented
from ift_training.model.sharding import whole
from ift_training.randomness import load_random, save_random
from ift_training.saved import incomplete
from ift_training.settings import TrainerSettings


class InstructionTrainer(Trainer):  # type: ignore[misc]
    """Losses are sums over a batch divided by counts over the whole optimiser step, on all processes.

    So the gradient is the same however a step's examples are cut into batches. A checkpoint is an adapter directory
    with what else a resumed run needs beside it. ``evaluation_collator`` hides nothing.
    """

    def __init__(
        self,
        *,
        built: Built,
        settings: TrainerSettings,
        evaluation_collator: Collator,
        tasks: list[str],
        **options: Any,
    ) -> None:
        super().__init__(model=built.model, **options)
        self.built = built
        self.settings = settings
        self.tasks = tasks
        self.best: BestWeights | None = None
        self.patience = 0
        # The division by counts replaces the one by the number of accumulated batches.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        self.evaluation_collator = evaluation_collator
        self._penalty: EwcPenalty | None = None
        if (ewc := settings.losses.ewc).fisher is not None:
            penalty = EwcPenalty(built.model, ewc.fisher, ewc.weight, checkpoint.metadata(built.model, settings))
            checkpoint.place(built.model, penalty.anchor)
            self._penalty = penalty if ewc.weight else None
        self._batches_of_step = 1
        self._trained: dict[str, Tensor] | None = None
        self._gathered: dict[str, Tensor] | None = None
        self._parts: dict[str, Tensor] = {}
        self._by_task: Tensor | None = None
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
        self._batches_of_step = len(batch_samples)
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
        penalty = self._share_of_penalty() if model.training else None
        output = model(**inputs)
        parts = self.parts(output, counts, totals)
        total = torch.stack(list(parts.values())).sum()
        if model.training:
            total = total * self.args.world_size
            if penalty is not None:
                total = total + penalty
                # Each process has all of it, unless each has the penalty of its own shards.
                parts["ewc"] = penalty / (1 if self.is_fsdp_enabled else self.args.world_size)
            self._note(parts)
            by_task = torch.stack((output.next_token.detach().double(), counts[:-2].to(output.next_token.device)))
            self._by_task = by_task if self._by_task is None else self._by_task + by_task
        return (total, output) if return_outputs else total

    def _share_of_penalty(self) -> Tensor | None:
        """The penalty over the batches of the step.

        Computed before the forward pass, from the parameters as the optimiser knows them: its gradient is the same on
        all processes, or that of the shards they hold, and averaging does not change it.
        """
        if self._penalty is None:
            return None
        if self._trained is None:
            self._trained = trainable(self.model)
        return self._penalty(self._trained) / self._batches_of_step

    def _note(self, parts: dict[str, Tensor]) -> None:
        """Keep the parts for the next line of the log."""
        if self._steps_logged < 0:
            self._steps_logged = self.state.global_step
        for name, value in parts.items():
            self._parts[name] = self._parts.get(name, torch.zeros((), device=value.device)) + value.detach()

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
            logs |= self._logged_by_task()
        super().log(logs, start_time)

    def _logged_by_task(self) -> dict[str, float]:
        """Each task's loss a token since the last line, and its weight now where weights are learned."""
        if self._by_task is None:
            return {}
        summed = self._by_task
        if self.args.world_size > 1:
            summed = self.accelerator.gather(summed[None]).sum(0)
        self._by_task = None
        return {name: round(value, 6) for name, value in self._task_values(*summed).items()}

    def _task_values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """Losses of the tasks that had tokens, ``[K]`` sums over ``[K]`` counts; weights of all where learned."""
        pairs = zip(self.tasks, sums.tolist(), counts.tolist(), strict=True)
        found = {f"task_loss_{name}": total / count for name, total, count in pairs if count}
        if (variances := self.built.model.balance.log_variances) is not None:
            weights = torch.exp(-whole(variances).detach()).tolist()
            found |= {f"task_weight_{name}": weight for name, weight in zip(self.tasks, weights, strict=True)}
        return found

    def measured(self) -> dict[str, float]:
        """The validation losses of the weights as they are now; empty without validation. All processes must call."""
        if self.eval_dataset is None:
            return {}
        training = self.model.training
        found = self.evaluation_loop(self.get_eval_dataloader(), "validation").metrics
        self.model.train(training)
        return {name: float(value) for name, value in (found or {}).items()}

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """The best so far is saved at once, whatever the distance between checkpoints."""
        if self.best is None:
            return bool(super()._determine_best_metric(metrics, trial))
        better = self.best.consider(metrics, self.state.global_step)
        if better and self.args.load_best_model_at_end:
            self.state.best_metric = metrics[METRIC if self.best.by_score else LOSS]
            self.state.best_global_step = self.state.global_step
            self.control.should_save = True
        if self.patience and self.best.waited >= self.patience:
            self.control.should_training_stop = True
        return better

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """All of the validation examples, with nothing hidden, in the same batches on every process."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        # A generator of its own: an evaluation must not change what training draws afterwards.
        return DataLoader(
            dataset,
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.evaluation_collator,
            generator=torch.Generator(),
        )

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The parts of the loss over all examples, as if they were one batch; answers are judged elsewhere.

        Processes take batches in turn, and as many forward passes each, which sharded models need.
        """
        self.model.eval()
        world, rank = self.args.world_size, self.args.process_index
        sums: list[Tensor] = []
        group: list[dict[str, Tensor]] = []
        last = len(dataloader) - 1
        for number, batch in enumerate(dataloader):
            group.append(batch)
            if len(group) == world or number == last:
                found = self._sums(group[min(rank, len(group) - 1)])
                sums.append(found if rank < len(group) else torch.zeros_like(found))
                group = []
        total = torch.stack(sums).sum(0)
        if world > 1:
            total = self.accelerator.gather(total[None]).sum(0)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._evaluated(total).items()}
        count = len(dataloader.dataset)  # type: ignore[arg-type]
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=count)  # type: ignore[arg-type]

    def _sums(self, batch: dict[str, Tensor]) -> Tensor:
        """``[2 K + 4]`` float64: summed losses (next token by task, instruction, representation), then their counts."""
        inputs = self._prepare_inputs(batch)
        with self.compute_loss_context_manager():
            output = self.model(**inputs)
        nothing = torch.zeros((), device=output.next_token.device)
        rest = [nothing if x is None else x for x in (output.instruction, output.representation)]
        losses = torch.cat((output.next_token, torch.stack(rest))).double()
        return torch.cat((losses, self.counts(inputs).to(losses.device)))

    def _evaluated(self, total: Tensor) -> dict[str, float]:
        losses, counts = total.chunk(2)
        variances = self.built.model.balance.log_variances
        output = TrainingOutput(
            next_token=losses[:-2].float(),
            instruction=losses[-2].float(),
            representation=losses[-1].float(),
            log_variances=None if variances is None else whole(variances),
        )
        parts = self.parts(output, counts, counts)
        found = {f"loss_{name}": float(value) for name, value in parts.items()}
        return {"loss": sum(found.values()), **found, **self._task_values(losses[:-2], counts[:-2])}

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
                [group for group in groups if group["params"]],
                lr=self.settings.learning_rate,
                weight_decay=self.settings.weight_decay,
            )
        return self.optimizer

    def write(self, directory: Path, card: str = "", recipe: dict[str, Any] | None = None, **fields: Any) -> None:
        """Write the adapter as it is now. ``fields`` go into its configuration: scores, template_fingerprint.

        One process may call it alone, also after a sharded run, which leaves the whole tensors of its end with it.
        """
        self._write(directory, self._gathered or checkpoint.gather(self.instruction_model), card, recipe, **fields)

    def _write(
        self,
        directory: Path,
        tensors: dict[str, Tensor],
        card: str = "",
        recipe: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        model = self.instruction_model
        files = checkpoint.by_file(model, tensors)
        config = IftConfig(
            base=self.built.reference, components=self.settings.components, recipe=recipe or {}, **fields
        )
        write_adapter(
            directory,
            peft_fields=checkpoint.peft_fields(model),
            peft_tensors=files[PEFT_WEIGHTS],
            config=config,
            extras=files[IFT_WEIGHTS],
            card=card,
        )

    def is_finite(self) -> bool:
        """Whether every trained weight is a number."""
        tensors = self._gathered or checkpoint.gather(self.instruction_model)
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())

    def restore(self, directory: Path) -> None:
        """Put the weights of a checkpoint or adapter directory back, extras and training state with them."""
        model = self.instruction_model
        checkpoint.place(model, checkpoint.read(model, directory, self.settings))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter, and beside it what is trained but is no part of it. All processes must call it."""
        model = self.instruction_model
        tensors = checkpoint.gather(model)
        if not self.args.should_save:
            return
        directory = Path(output_dir or self.args.output_dir)
        self._write(directory, tensors)
        if kept := checkpoint.by_file(model, tensors)[checkpoint.TRAINING_STATE]:
            save_file(kept, directory / checkpoint.TRAINING_STATE)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        checkpoint.save_optimizer(
            Path(output_dir), self.model, self.optimizer, self.lr_scheduler, write=self.args.should_save
        )

    def _load_optimizer_and_scheduler(self, checkpoint_directory: str | None) -> None:
        if checkpoint_directory is not None:
            checkpoint.load_optimizer(Path(checkpoint_directory), self.model, self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        save_random(Path(output_dir), self.args.process_index)

    def _load_rng_state(self, checkpoint_directory: str | None) -> None:
        if checkpoint_directory is not None:
            load_random(Path(checkpoint_directory), self.args.process_index)

    def _inner_training_loop(self, *args: Any, **options: Any) -> Any:
        self._parts.clear()
        self._by_task = None
        self._steps_logged = -1
        self._trained = self._gathered = None
        result = super()._inner_training_loop(*args, **options)
        if self.is_fsdp_enabled:
            self._gathered = checkpoint.gather(self.instruction_model)
        return result

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.restore(Path(resume_from_checkpoint))

    def recall_best(self) -> None:
        """Consider again what a run that is resumed evaluated before, if the best of it is still there to be written.

        Without its checkpoint the best is the best from now on: what is told must be what is written.
        """
        if self.best is None or not self.state.global_step:
            return
        step = self.state.best_global_step
        if self.args.load_best_model_at_end:
            # The run's directory may have another name than at the time.
            kept = Path(self.args.output_dir) / f"checkpoint-{step}"
            if step is None or incomplete(kept) is not None:
                self.state.best_model_checkpoint = self.state.best_metric = None
                self.state.best_global_step = None
                return
            self.state.best_model_checkpoint = str(kept)
        self.best.replay(self.state.log_history)

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self.restore(Path(self.state.best_model_checkpoint))
