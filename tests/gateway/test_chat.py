"""Chat completions through OpenAI's own client, against what the Python client gets over gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai

from ift_serve.client import Client, Message, Trace, Vote
from tests.gateway.conftest import ADMIN
from tests.support.gateway import RunningGateway, Serving

SUM: Any = [{"role": "user", "content": "What is 23 + 14?"}]
ANIMALS: Any = [{"role": "user", "content": "Name three animals."}]


@pytest.fixture(scope="module")
def direct(serving: Serving) -> Iterator[Client]:
    with Client(serving.address, token=ADMIN) as made:
        yield made


def test_an_answer_is_the_servers(client: openai.OpenAI, direct: Client) -> None:
    own = direct.generate([Message("user", "What is 23 + 14?")], temperature=0)
    found = client.chat.completions.create(model="ift-tiny", messages=SUM, temperature=0)
    (choice,) = found.choices
    assert choice.message.content == own.text
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert found.object == "chat.completion" and found.model == "ift-tiny"
    assert found.usage is not None
    assert found.usage.prompt_tokens == own.usage.prompt_tokens
    assert found.usage.completion_tokens == own.usage.generated_tokens
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found._request_id and found.id == f"chatcmpl-{found._request_id}"


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="ift-tiny", messages=ANIMALS, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="ift-tiny", messages=ANIMALS, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert len(chunks) > 3 and {c.id for c in chunks} == {chunks[0].id}
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_without_include_usage_a_stream_has_none(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="ift-tiny", messages=SUM, stream=True, temperature=0))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)


def test_n_seed_and_stop(client: openai.OpenAI, direct: Client) -> None:
    options: dict[str, Any] = {"n": 3, "seed": 7, "temperature": 1.0}
    found = client.chat.completions.create(model="ift-tiny", messages=ANIMALS, max_tokens=12, stop=["."], **options)
    own = direct.generate([Message("user", "Name three animals.")], max_new_tokens=12, stop=["."], **options)
    assert [choice.message.content for choice in found.choices] == [candidate.text for candidate in own.candidates]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(
        model="ift-tiny", messages=ANIMALS, max_tokens=12, stop=["."], stream=True, **options
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == [candidate.text for candidate in own.candidates]


def test_a_length_that_is_reached_is_told(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        limit: dict[str, Any] = {name: 3}
        found = client.chat.completions.create(model="ift-tiny", messages=ANIMALS, temperature=0, **limit)
        assert found.choices[0].finish_reason == "length"
        assert found.usage is not None and found.usage.completion_tokens == 3


@pytest.mark.parametrize("stop", [None, [" and"], ["."]])
def test_log_probs_belong_to_the_tokens_of_the_text(client: openai.OpenAI, direct: Client, stop: Any) -> None:
    asked: dict[str, Any] = {"model": "ift-tiny", "messages": ANIMALS, "temperature": 0, "stop": stop}
    found = client.chat.completions.create(**asked, logprobs=True, top_logprobs=4)
    choice = found.choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    content = choice.logprobs.content
    written = b"".join(bytes(entry.bytes or ()) for entry in content).decode()
    assert choice.message.content and written.startswith(choice.message.content)
    assert all(entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob for entry in content)
    assert all(len(entry.top_logprobs) == 4 and entry.logprob == entry.top_logprobs[0].logprob for entry in content)
    own = direct.generate([Message("user", "Name three animals.")], temperature=0, stop=stop, tokens=True)
    known = [token.log_prob for token in own.candidates[0].tokens]
    assert [entry.logprob for entry in content] == pytest.approx(known[: len(content)])
    streamed = client.chat.completions.create(**asked, logprobs=True, top_logprobs=4, stream=True)
    entries = [e for c in streamed for x in c.choices if x.logprobs and x.logprobs.content for e in x.logprobs.content]
    assert [entry.token for entry in entries] == [entry.token for entry in content]


def test_thoughts_come_beside_the_answer(client: openai.OpenAI, direct: Client) -> None:
    own = direct.generate([Message("user", "What is 38 + 35?")], temperature=0, reasoning=Trace(budget=64))
    asked: dict[str, Any] = {"model": "ift-tiny", "messages": [{"role": "user", "content": "What is 38 + 35?"}]}
    asked |= {"temperature": 0, "extra_body": {"reasoning": {"trace": {"budget": 64}}}}
    found = client.chat.completions.create(**asked, logprobs=True)
    message = found.choices[0].message
    assert (message.content, message.reasoning_content) == (own.text, own.reasoning)  # type: ignore[attr-defined]
    assert found.usage is not None and found.usage.completion_tokens_details is not None
    assert found.usage.completion_tokens_details.reasoning_tokens == own.usage.reasoning_tokens > 0
    entries = found.choices[0].logprobs
    assert entries is not None and entries.content is not None
    assert "".join(entry.token for entry in entries.content) == message.content
    thought = answer = ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            answer += choice.delta.content or ""
    assert (thought, answer) == (own.reasoning, own.text)


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium"])
def test_efforts_are_budgets_of_thought(client: openai.OpenAI, effort: Any) -> None:
    found = client.chat.completions.create(model="ift-tiny", messages=SUM, reasoning_effort=effort, temperature=0)
    applied = found.ift["reasoning"]  # type: ignore[attr-defined]
    assert applied["kind"] == ("none" if effort == "none" else "trace")
    assert applied.get("budget") == {"none": None, "minimal": 64, "low": 256}.get(effort, applied.get("budget"))
    thought = getattr(found.choices[0].message, "reasoning_content", None)
    assert bool(thought) == (effort != "none")


def test_max_completion_tokens_bounds_thought_and_answer_together(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="ift-tiny", messages=SUM, reasoning_effort="low", max_completion_tokens=20, temperature=0
    )
    applied = found.ift["reasoning"]  # type: ignore[attr-defined]
    assert applied["budget"] == 10 and found.ift["sampling"]["max_new_tokens"] == 10  # type: ignore[attr-defined]


def test_a_vote_and_its_branches_are_told(client: openai.OpenAI, direct: Client) -> None:
    options: dict[str, Any] = {"temperature": 0.8, "seed": 5}
    own = direct.generate([Message("user", "What is 23 + 14?")], reasoning=Vote(samples=4), **options)
    body = {"reasoning": {"vote": {"samples": 4}}}
    found = client.chat.completions.create(model="ift-tiny", messages=SUM, extra_body=body, **options)
    assert found.choices[0].message.content == own.text and own.conclusion is not None
    conclusion = found.ift["conclusion"]  # type: ignore[attr-defined]
    assert [branch["answer"] for branch in conclusion["branches"]] == [branch.answer for branch in own.branches]
    chunks = list(
        client.chat.completions.create(model="ift-tiny", messages=SUM, extra_body=body, stream=True, **options)
    )
    assert chunks[-1].ift["conclusion"] == conclusion  # type: ignore[attr-defined]


def test_details_of_tokens_add_up_to_both_channels(client: openai.OpenAI) -> None:
    body = {"reasoning": {"trace": {"budget": 32}}, "token_details": True, "processed_log_probs": True}
    found = client.chat.completions.create(model="ift-tiny", messages=SUM, temperature=0.7, seed=1, extra_body=body)
    tokens = found.choices[0].ift["tokens"]  # type: ignore[attr-defined]
    joined = {"reasoning": "", "answer": ""}
    for token in tokens:
        if token["channel"] in joined and not token.get("end"):
            joined[token["channel"]] += token["text"]
    message = found.choices[0].message
    assert joined["reasoning"] == message.reasoning_content  # type: ignore[attr-defined]
    assert message.content and joined["answer"].startswith(message.content)
    drawn = [token for token in tokens if not token.get("forced")]
    assert all(0 < token["p1"] <= 1 and token["entropy"] >= 0 and "processed_logprob" in token for token in drawn)
    assert [token["temperature"] for token in drawn] == pytest.approx([0.7] * len(drawn))


def test_a_json_object_and_a_schema(client: openai.OpenAI) -> None:
    class Sum(BaseModel):
        model_config = ConfigDict(extra="forbid")
        is_even: bool

    schema: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": Sum.model_json_schema()}}
    found = client.chat.completions.create(model="ift-tiny", messages=SUM, response_format=schema, temperature=0)
    Sum.model_validate_json(found.choices[0].message.content or "")
    parsed = client.chat.completions.parse(model="ift-tiny", messages=SUM, response_format=Sum, temperature=0)
    assert isinstance(parsed.choices[0].message.parsed, Sum)
    for seed in range(3):
        free = client.chat.completions.create(
            model="ift-tiny", messages=SUM, response_format={"type": "json_object"}, seed=seed, max_tokens=200
        )
        text = free.choices[0].message.content or ""
        assert text.startswith("{")
        if free.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("body", [{"regex": "[0-9]{2}!"}, {"grammar": 'start: /[0-9][0-9]/ "!"'}])
def test_regular_expressions_and_grammars(client: openai.OpenAI, body: dict[str, str]) -> None:
    found = client.chat.completions.create(model="ift-tiny", messages=SUM, extra_body=body, temperature=0)
    text = found.choices[0].message.content or ""
    assert len(text) == 3 and text[:2].isdigit() and text[2] == "!"


def test_adapters_are_models(client: openai.OpenAI, direct: Client) -> None:
    own = direct.generate([Message("user", "Name three animals.")], adapter="tone", temperature=0, max_new_tokens=8)
    for named in ({"model": "tone"}, {"model": "ift-tiny", "extra_body": {"adapter": "tone"}}, {"model": own.adapter}):
        asked: Any = {"messages": ANIMALS, "temperature": 0, "max_tokens": 8, **named}
        found = client.chat.completions.create(**asked)
        assert found.choices[0].message.content == own.text and found.model == own.adapter


def test_adaptive_temperatures(client: openai.OpenAI) -> None:
    body = {"adaptive": {"rule": "head", "scale": 1.5}, "token_details": True}
    found = client.chat.completions.create(model="head", messages=ANIMALS, max_tokens=8, seed=2, extra_body=body)
    temperatures = {token["temperature"] for token in found.choices[0].ift["tokens"]}  # type: ignore[attr-defined]
    assert len(temperatures) > 1
    assert found.ift["sampling"]["adaptive"]["scale"] == pytest.approx(1.5)  # type: ignore[attr-defined]


def test_context_has_a_segment_of_its_own(client: openai.OpenAI, direct: Client) -> None:
    question = "How old is Ben?"
    own = direct.generate([Message("user", question, "Ben is 34 years old.")], temperature=0)
    beside: Any = [{"role": "user", "content": question}]
    parts: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": f"{question}\n\n", "segment": "instruction"},
                {"type": "text", "text": "Ben is 34 years old.", "segment": "context"},
            ],
        }
    ]
    asked: dict[str, Any] = {"model": "ift-tiny", "temperature": 0}
    body = {"context": "Ben is 34 years old."}
    assert (
        client.chat.completions.create(**asked, messages=beside, extra_body=body).choices[0].message.content == own.text
    )
    assert client.chat.completions.create(**asked, messages=parts).choices[0].message.content == own.text


def test_an_answer_can_be_given_back_as_it_came(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="ift-tiny", messages=SUM, reasoning_effort="low", temperature=0)
    messages = [*SUM, first.choices[0].message, {"role": "user", "content": "And 2 more?"}]
    second = client.chat.completions.create(model="ift-tiny", messages=messages, temperature=0)
    assert second.choices[0].message.content


def test_the_last_message_is_continued_where_asked(client: openai.OpenAI) -> None:
    messages: Any = [*SUM, {"role": "assistant", "content": "The answer"}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="ift-tiny", messages=messages)
    assert refused.value.param == "messages[1].role"
    found = client.chat.completions.create(
        model="ift-tiny", messages=messages, temperature=0, extra_body={"continue_final_message": True}
    )
    assert found.choices[0].message.content


async def test_the_asynchronous_client_too(running: RunningGateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=ADMIN, max_retries=0) as client:
        asked: dict[str, Any] = {"model": "ift-tiny", "messages": SUM, "temperature": 0}
        many = await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(12)))
        assert len({found.choices[0].message.content for found in many}) == 1
        async with client.chat.completions.stream(**asked) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == many[0].choices[0].message.content
