"""Models that several threads load at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.decoder.model_loader import load_model
from tests.support.architectures import build


def test_threads_leave_transformers_as_it_was(tmp_path: Path) -> None:
    """It takes the tying of weights out of its classes while it loads, for all threads."""
    path = build("llama-biased", tmp_path)
    before, dtype = PreTrainedModel.tie_weights, torch.get_default_dtype()

    def load(number: int) -> bool:
        if number % 3:
            model: Any = load_model(str(path), dtype=("float32", "bfloat16")[number % 2]).model
            return bool(model.lm_head.weight is model.model.embed_tokens.weight)
        return BaseMetadata.of_directory(path).tied

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(load, range(24)))
    assert PreTrainedModel.tie_weights is before and torch.get_default_dtype() == dtype
