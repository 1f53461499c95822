"""Completions of raw text and token ids, against the Python client."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai

from ift_serve.client import Client, Prompt
from tests.gateway.conftest import ADMIN
from tests.support.gateway import Serving

TEXT = "The fox and the"


def _own(serving: Serving, prompt: Prompt, **options: Any) -> Any:
    with Client(serving.address, token=ADMIN) as direct:
        return direct.generate(prompt, temperature=0, **options)


def test_text_and_token_ids(client: openai.OpenAI, serving: Serving) -> None:
    own = _own(serving, Prompt.from_text(TEXT), max_new_tokens=8, prompt_token_ids=True)
    for prompt in (TEXT, own.prompt_token_ids):
        found = client.completions.create(model="ift-tiny", prompt=prompt, max_tokens=8, temperature=0)
        assert found.choices[0].text == own.text and found.object == "text_completion"
        assert found.usage is not None and found.usage.completion_tokens == own.usage.generated_tokens
    streamed = client.completions.create(model="ift-tiny", prompt=TEXT, max_tokens=8, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == own.text


def test_several_prompts_with_several_answers_each(client: openai.OpenAI, serving: Serving) -> None:
    prompts = ["The fox", "A dog", "Say hello"]
    found = client.completions.create(model="ift-tiny", prompt=prompts, max_tokens=4, temperature=0, n=2)
    assert [choice.index for choice in found.choices] == list(range(6))
    for place, prompt in enumerate(prompts):
        own = _own(serving, Prompt.from_text(prompt), max_new_tokens=4)
        assert {choice.text for choice in found.choices[2 * place : 2 * place + 2]} == {own.text}
    ids = [[5, 6, 7], [8, 9]]
    assert len(client.completions.create(model="ift-tiny", prompt=ids, max_tokens=2, temperature=0).choices) == 2


def test_log_probs_are_lists_side_by_side(client: openai.OpenAI, serving: Serving) -> None:
    own = _own(serving, Prompt.from_text(TEXT), max_new_tokens=8, tokens=True)
    found = client.completions.create(model="ift-tiny", prompt=TEXT, max_tokens=8, temperature=0, logprobs=3)
    choice = found.choices[0]
    assert choice.logprobs is not None
    told = choice.logprobs
    assert told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    assert "".join(told.tokens) == choice.text
    assert told.token_logprobs == pytest.approx([t.log_prob for t in own.candidates[0].tokens][: len(told.tokens)])
    assert [choice.text[offset:].startswith(token) for offset, token in zip(told.text_offset, told.tokens, strict=True)]
    assert all(1 <= len(top) <= 3 for top in told.top_logprobs)


def test_segments_belong_to_token_ids(client: openai.OpenAI) -> None:
    body = {"segments": ["template", "instruction", "context"]}
    found = client.completions.create(model="ift-tiny", prompt=[5, 6, 7], max_tokens=2, temperature=0, extra_body=body)
    assert found.choices
    for prompt in ([5, 6], "text", ["text"]):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="ift-tiny", prompt=prompt, extra_body=body)
        assert refused.value.param == "segments"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["x"] * 33}, "prompt"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": ["fine", ""]}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt"),
        ({"prompt": [10**6]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["x", "y"], "stream": True}, "stream"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/completions", body={"model": "ift-tiny", **fields}, cast_to=object)
    assert (refused.value.param or "").split("[")[0] == param.split("[")[0], refused.value
