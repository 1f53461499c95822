"""Ends a run whose numbers are none any more, before it writes over what was good."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from ift_training.recipe import RecipeError


def diverged(step: int) -> RecipeError:
    """What to tell of a run that diverged."""
    return RecipeError(
        f"trainer.learning_rate: the training diverged, its numbers are not finite at step {step}; lower it, or "
        "trainer.component_learning_rate. The adapter was not written"
    )


class DivergenceCallback(TrainerCallback):  # type: ignore[misc]
    """Looks at every loss that is logged."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Raises RecipeError."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise diverged(state.global_step)
