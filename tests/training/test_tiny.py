"""The embedded model: its tokenizer, its training, and what was committed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from ift_serve.embedded import model_path
from ift_training.data.procedural import families
from ift_training.pretrain.batches import batches
from ift_training.pretrain.card import factual_mean
from ift_training.pretrain.evaluate import score_families, transformers_answers
from ift_training.pretrain.optimise import rate
from ift_training.pretrain.recipe import FAMILY_WEIGHTS, Recipe
from ift_training.tiny import make_tokenizer, save, train

SMALL = Recipe(
    steps=3,
    vocabulary=400,
    tokenizer_examples=300,
    hidden=32,
    layers=1,
    heads=2,
    kv_heads=1,
    intermediate=64,
    batch_tokens=512,
    warmup=1,
    context=256,
)


def test_every_family_is_trained_on() -> None:
    assert set(FAMILY_WEIGHTS) == set(families())


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(SMALL)
    first, second = (train(SMALL, tokenizer)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_saved_files_load_as_transformers_does(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(SMALL)
    model, curve, tokens = train(SMALL, tokenizer)
    assert len(curve) == 3 and tokens > 0
    save(tmp_path, model, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in tmp_path.iterdir())
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    text = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert text == "<|bos|><|system|>s<|end|><|user|>a<|end|><|assistant|>"


def test_batches_weigh_answers_fully_and_stay_in_bounds() -> None:
    stream = batches(make_tokenizer(SMALL), SMALL)
    for _ in range(20):
        ids, weights = next(stream)
        assert ids.shape == weights.shape and ids.numel() <= SMALL.batch_tokens
        assert (weights == 1.0).any(dim=1).all()


def test_rate_warms_up_and_decays() -> None:
    recipe = Recipe()
    rates = [rate(step, recipe) for step in range(recipe.steps)]
    assert rates[0] < 0.01 and max(rates) == 1.0 and rates[-1] < 0.03


@pytest.fixture(scope="module")
def embedded_tokenizer() -> object:
    return AutoTokenizer.from_pretrained(model_path())


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_round_trips(embedded_tokenizer: object, text: str) -> None:
    ids = embedded_tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assert embedded_tokenizer.decode(ids) == text  # type: ignore[attr-defined]


def test_the_embedded_model_is_small_and_follows_plain_requests() -> None:
    path = model_path()
    assert (path / "model.safetensors").stat().st_size <= 8 * 2**20
    assert (path / "README.md").is_file() and (path / "loss.png").is_file()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    scores = score_families(transformers_answers(model, AutoTokenizer.from_pretrained(path)), 12, seed=11)
    assert factual_mean(scores) >= 0.6
