"""Progress bars of a training."""

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
        self._due = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar."""
        self._bar.start()
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """One step on. Its line waits for what is measured after it."""
        self._due = state.global_step % max(1, state.max_steps // _LINES) == 0 or state.global_step == state.max_steps
        self._update(state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Whatever belongs to the step before has been measured."""
        self._print_line(state)

    def _update(self, state: TrainerState) -> None:
        assert self._task is not None
        self._bar.update(self._task, completed=state.global_step, note=f"{self._loss} {self._score}".strip())

    def _print_line(self, state: TrainerState) -> None:
        if self._due and not self._console.is_terminal:
            print(f"step {state.global_step} of {state.max_steps} {self._loss} {self._score}".rstrip(), flush=True)
        self._due = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Remember what to show."""
        if "loss" in logs:
            self._loss = f"loss {logs['loss']:.3f}"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, Any], **_: Any
    ) -> None:
        """Show what was measured, with the step that it is of."""
        at = f"at step {state.global_step}"
        if "eval_score" in metrics:
            self._score = f"passed {100 * metrics['eval_score']:.0f} % {at}"
        elif "eval_loss" in metrics:
            self._score = f"validation loss {metrics['eval_loss']:.3f} {at}"
        self._update(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the last state of the bar standing."""
        self._print_line(state)
        self._bar.stop()
