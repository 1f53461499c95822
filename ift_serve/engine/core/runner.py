"""Interface of the model runner, which alone of the two knows torch."""

from __future__ import annotations

from typing import Protocol

from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.progress import Progress
from ift_serve.engine.sequences.step import StepBatch, StepResult


class Runner(Protocol):
    """What the core needs of a model runner."""

    @property
    def description(self) -> ModelDescription: ...
    @property
    def block_size(self) -> int: ...
    @property
    def total_blocks(self) -> int: ...
    @property
    def progress(self) -> Progress:
        """Where the parts of a step that are done are noted."""

    @progress.setter
    def progress(self, progress: Progress) -> None: ...
    def execute(self, batch: StepBatch) -> StepResult: ...
    def profile(self) -> None:
        """Write a trace of the next steps."""
