"""What a person sees while the steps go by."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import TaskID
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ift_training.progress import bar

_LINES = 10
"""Lines of progress in all where the output is no terminal."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """A bar with the loss and the last score; a line now and then where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = bar(console)
        self._task: TaskID | None = None
        self._loss = self._score = ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar."""
        self._bar.start()
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """One step on."""
        assert self._task is not None
        self._bar.update(self._task, completed=state.global_step, note=f"{self._loss} {self._score}".strip())
        if not self._console.is_terminal and state.global_step % max(1, state.max_steps // _LINES) == 0:
            print(f"step {state.global_step} of {state.max_steps} {self._loss} {self._score}".rstrip(), flush=True)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Remember what to show."""
        if "loss" in logs:
            self._loss = f"loss {logs['loss']:.3f}"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, Any], **_: Any
    ) -> None:
        """Remember what to show."""
        if "eval_score" in metrics:
            self._score = f"passed {100 * metrics['eval_score']:.0f} %"
        elif "eval_loss" in metrics:
            self._score = f"validation loss {metrics['eval_loss']:.3f}"

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the last state of the bar standing."""
        self._bar.stop()
