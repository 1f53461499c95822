"""Contradictions by a model of natural language inference that the user has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.filter import DIGITS, Filter, Finding
from ift_training.data.quality.pair import Pair

_LONGEST, _AT_ONCE = 512, 16
_LABEL = "contradiction"


class Entailment(Filter):
    """The probability of a contradiction between what was given and the answer, the larger of both directions.

    ``path``: a directory with a sequence classifier whose labels (``id2label``) name ``contradiction``. Raises
    QualityError for another.
    """

    name: ClassVar[str] = "entailment"
    good: ClassVar[Literal["high", "low"]] = "low"

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        from ift_serve.modeling.checkpoint.construction import model_construction

        logging.disable_progress_bar()
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, **options)
            with model_construction:
                self._model: Any = AutoModelForSequenceClassification.from_pretrained(
                    path, use_safetensors=True, dtype="float32", **options
                ).eval()
        except (OSError, ValueError) as error:
            raise QualityError(f"entailment.path: {path}: is no classifier that can be read: {error}") from error
        labels = {str(label).lower(): int(place) for place, label in self._model.config.id2label.items()}
        if _LABEL not in labels:
            raise QualityError(f"entailment.path: {path}: none of its labels is {_LABEL!r}: {', '.join(labels)}")
        self._place = labels[_LABEL]
        weights = path / "model.safetensors"
        self._digest = _digest(weights) if weights.is_file() else str(path.resolve())

    def depends_on(self) -> object:
        """The weights."""
        return self._digest

    def score(self, pairs: Sequence[Pair]) -> list[Finding]:
        """See :class:`Filter`."""
        forward = self._probabilities([(pair.source, pair.response) for pair in pairs])
        backward = self._probabilities([(pair.response, pair.source) for pair in pairs])
        return [
            Finding(round(max(scores), DIGITS), "does not follow from the text, or the text from it: a contradiction")
            for scores in zip(forward, backward, strict=True)
        ]

    def _probabilities(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        import torch

        found: list[float] = []
        for start in range(0, len(texts), _AT_ONCE):
            premises, hypotheses = zip(*texts[start : start + _AT_ONCE], strict=True)
            batch = self._tokenizer(
                list(premises), list(hypotheses), truncation=True, max_length=_LONGEST, padding=True,
                return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                found += self._model(**batch).logits.float().softmax(-1)[:, self._place].tolist()
        return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
