"""Models to measure with are as large as they say, and their text costs what a trained tokenizer's does."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import SHAPES, build, save_tokenizer
from traffic import cases
from transformers import AutoConfig, PreTrainedTokenizerFast


@pytest.mark.parametrize("vocabulary", [2_048, 49_152])
def test_every_token_of_the_tokenizer_has_text(tmp_path: Path, vocabulary: int) -> None:
    save_tokenizer(tmp_path, vocabulary)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(tokenizer) == vocabulary
    texts = tokenizer.batch_decode([[i] for i in range(3, vocabulary, 37)])
    assert all(texts)
    text = "Some text, with (marks) in it."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_built_model_has_its_shape_and_is_built_once(tmp_path: Path) -> None:
    shape = SHAPES["small"]
    directory = build("small", tmp_path / "small", "float32")
    config = AutoConfig.from_pretrained(directory)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (
        shape.hidden,
        shape.layers,
        shape.vocabulary,
    )
    weights = directory / "model.safetensors"
    written = weights.stat().st_mtime_ns
    build("small", directory, "float32")
    assert weights.stat().st_mtime_ns == written


def test_traffic_is_seeded_and_of_all_kinds() -> None:
    made = cases(60, 2_048, seed=1)
    assert made == cases(60, 2_048, seed=1) != cases(60, 2_048, seed=2)
    assert any(c.continuations for c in made)
    assert {c.sampling["n"] for c in made if c.sampling} >= {1, 2}
    assert any(c.sampling.get("temperature") == 0 for c in made)
    assert all(c.prompt and max(c.prompt) < 2_048 for c in made)
