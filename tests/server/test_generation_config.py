"""A model's generation_config: applied as the defaults of requests, shown in answers, named where it is not applied."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ift_serve.client import AsyncClient, Prompt
from ift_serve.engine.sampling.model_defaults import sampling_defaults
from ift_serve.server.config import ServerConfig
from tests.support.models import tiny_llama
from tests.support.serving import serving

_PROMPTS = ["the fox and the dog ran to the river. the fox", "hello hello hello"]


@pytest.fixture
def configured(tmp_path: Path, server_config: Callable[..., ServerConfig]) -> Callable[..., ServerConfig]:
    """A server of a model whose generation_config has these fields."""

    def make(fields: dict[str, Any], **options: Any) -> ServerConfig:
        directory = tiny_llama(tmp_path / "configured", seed=5)
        file = directory / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 2} | fields))
        return server_config({"model": str(directory)}, **options)

    return make


def _transformers_answer(directory: str, prompt: str, **arguments: Any) -> list[int]:
    """Greedy tokens of transformers' own generate, the directory's generation_config applied."""
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    ids = AutoTokenizer.from_pretrained(directory)(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, **arguments
        )
    return list(found[0, ids.shape[1] :].tolist())


async def _greedy(client: AsyncClient, prompt: str, **sampling: Any) -> list[int]:
    answer = await client.generate(Prompt.from_text(prompt), temperature=0, max_new_tokens=24, tokens=True, **sampling)
    return [token.token_id for token in answer.candidates[0].tokens]


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"suppress_tokens": list(range(100, 200))},
        {"bad_words_ids": [[token] for token in range(40, 120)] + [[2]]},
        {"sequence_bias": [[[90], 30.0], [[91], -5.0]], "repetition_penalty": 1.5},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 5, "repetition_penalty": 1.1},
    ],
)
async def test_greedy_tokens_are_those_of_transformers_generate(
    configured: Callable[..., ServerConfig], fields: dict[str, Any]
) -> None:
    config = configured(fields)
    plain = {"repetition_penalty": 1.0, "suppress_tokens": None, "bad_words_ids": None, "sequence_bias": None}
    async with serving(config) as (_, client):
        for prompt in _PROMPTS:
            expected = _transformers_answer(config.engine.model, prompt)
            assert await _greedy(client, prompt) == expected
        assert (await client.model()).sampling_not_applied == ()
    assert any(
        _transformers_answer(config.engine.model, prompt) != _transformers_answer(config.engine.model, prompt, **plain)
        for prompt in _PROMPTS
    ), "the case must be one where the settings change the answer"


async def test_a_request_overrides_and_the_answer_says_what_was_applied(
    configured: Callable[..., ServerConfig],
) -> None:
    config = configured(
        {"repetition_penalty": 1.3, "temperature": 0.5, "top_k": 7, "suppress_tokens": [90], "max_new_tokens": 5}
    )
    async with serving(config) as (_, client):
        left_open = await client.generate(Prompt.from_text("the fox"), seed=3)
        assert left_open.sampling == {
            "temperature": 0.5,
            "top_p": 1.0,
            "top_k": 7,
            "min_p": 0.0,
            "repetition_penalty": pytest.approx(1.3),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "logit_bias": {90: -float("inf")},
            "seed": 3,
            "max_new_tokens": 5,
            "n": 1,
        }
        said = await client.generate(
            Prompt.from_text("the fox"),
            repetition_penalty=1.0,
            temperature=0,
            top_k=0,
            logit_bias={90: 1.0, 91: 2.0},
            max_new_tokens=24,
            stop=["@@"],
        )
        assert said.sampling["repetition_penalty"] == 1.0
        assert (said.sampling["temperature"], said.sampling["top_k"]) == (0.0, 0)
        assert said.sampling["logit_bias"] == {90: 1.0, 91: 2.0}
        assert (said.sampling["max_new_tokens"], said.sampling["stop"]) == (24, ["@@"])
        for prompt in _PROMPTS:
            expected = _transformers_answer(
                config.engine.model, prompt, repetition_penalty=1.0, suppress_tokens=None, sequence_bias={(90,): 1.0}
            )
            assert await _greedy(client, prompt, repetition_penalty=1.0, logit_bias={90: 1.0}) == expected


async def test_what_was_applied_gives_the_same_answer_again(configured: Callable[..., ServerConfig]) -> None:
    config = configured({"repetition_penalty": 1.3, "temperature": 0.9, "top_p": 0.95})
    async with serving(config) as (_, client):
        first = await client.generate(Prompt.from_text("the dog"), max_new_tokens=16)
        assert (await client.generate(Prompt.from_text("the dog"), **first.sampling)).text == first.text
        stream = client.stream(Prompt.from_text("the dog"), **first.sampling)
        assert "".join([str(piece) async for piece in stream]) == first.text
        assert (await stream.result()).sampling == first.sampling


async def test_defaults_are_shown_and_can_be_left_aside(configured: Callable[..., ServerConfig]) -> None:
    fields = {"repetition_penalty": 1.3, "do_sample": False, "no_repeat_ngram_size": 3}
    config = configured(fields, sampling_defaults="neutral")
    async with serving(config) as (_, client):
        model = await client.model()
        assert model.sampling_defaults["repetition_penalty"] == 1.0
        assert (model.sampling_defaults["temperature"], model.sampling_not_applied) == (1.0, ())
        for prompt in _PROMPTS:
            expected = _transformers_answer(config.engine.model, prompt, repetition_penalty=1.0, no_repeat_ngram_size=0)
            assert await _greedy(client, prompt) == expected
    async with serving(config.model_copy(update={"sampling_defaults": "model"})) as (_, client):
        model = await client.model()
        assert model.sampling_defaults["repetition_penalty"] == pytest.approx(1.3)
        assert model.sampling_defaults["temperature"] == 0.0, "do_sample: false is greedy where it is said"


async def test_what_is_not_applied_is_named_at_start_and_to_callers(
    configured: Callable[..., ServerConfig], caplog: pytest.LogCaptureFixture
) -> None:
    config = configured({"no_repeat_ngram_size": 3, "typical_p": 0.9, "num_beams": 1, "bad_words_ids": [[5, 6], [7]]})
    with caplog.at_level(logging.WARNING):
        async with serving(config) as (_, client):
            named = (await client.model()).sampling_not_applied
    assert set(named) == {"no_repeat_ngram_size: 3", "typical_p: 0.9", "bad_words_ids: [5, 6]"}
    assert "no_repeat_ngram_size: 3" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 11.0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 11.0),
        ("max_new_tokens", 0),
        ("temperature", "hot"),
    ],
)
def test_values_that_no_request_may_have_are_named_and_not_applied(field: str, value: Any) -> None:
    defaults = sampling_defaults({field: value}, [2], 100)
    assert defaults.not_applied == [f"{field}: {value}"]
    assert getattr(defaults, field) == getattr(sampling_defaults({}, [2], 100), field)
