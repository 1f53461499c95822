"""What a float8 cache holds of keys and values of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.sequences.step import SequenceStep, StepBatch
from ift_serve.modeling.decoder.cache_scales import cache_scales
from ift_serve.modeling.decoder.model_loader import load_model
from tests.support.architectures import build
from tests.support.unchecked import unchecked_runner

TEXT = [(17 * i + 5) % 150 + 6 for i in range(41)]


def _scaled(source: Path, directory: Path, factor: float) -> Path:
    """The same function of its input, by keys and values that are ``factor`` times as large."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            for larger, smaller in ((attention.k_proj, attention.q_proj), (attention.v_proj, attention.o_proj)):
                larger.weight *= factor
                smaller.weight /= factor
    model.save_pretrained(directory)
    return directory


def _log_probs(path: Path, **options: Any) -> list[float]:
    config = EngineConfig(
        model=str(path), dtype="float32", total_blocks=4, attention_backend="reference", max_sequences=1, **options
    )
    step = SequenceStep(0, TEXT[:-1], 0, [2, 0, 3], score_targets=TEXT[1:])
    scored = unchecked_runner(config).execute(StepBatch([step], [])).scored[0]
    assert scored is not None
    return scored.log_probs


@pytest.mark.parametrize("factor", [2.0**14, 2.0**-14])
def test_the_size_of_keys_and_values_does_not_matter(factor: float, tmp_path: Path) -> None:
    plain = build("llama", tmp_path / "plain")
    other = _scaled(plain, tmp_path / "other", factor)
    exact, rounded = _log_probs(plain), _log_probs(plain, cache_dtype="fp8")
    assert _log_probs(other) == exact
    assert _log_probs(other, cache_dtype="fp8") == rounded
    assert 0 < max(abs(a - b) for a, b in zip(exact, rounded, strict=True)) < 1


def test_scales_leave_room_above_what_was_seen(tmp_path: Path) -> None:
    loaded = load_model(str(build("qwen3", tmp_path)), dtype="float32")
    scales = cache_scales(loaded)
    assert len(scales) == 3
    for scale in scales:
        for own in (scale.key, scale.value):
            assert own == 2.0 ** round(torch.tensor(own).log2().item())
    # Keys are normalised to a root mean square of 1 over 32 entries, so none is larger than 32 ** 0.5.
    assert all(scale.key * 448 >= 4 for scale in scales)
    assert all(scale.key * 448 <= 2 * 4 * 32**0.5 * 1.5 for scale in scales)
