"""What ends a run of the filters."""

from __future__ import annotations

from ift_training.data.generation.errors import GenerationError


class QualityError(GenerationError):
    """Records that cannot be judged as asked; the message names the field and says what to do."""
