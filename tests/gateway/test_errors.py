"""Refusals: by name, in OpenAI's shape, with the status that fits."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai

from tests.gateway.conftest import ADMIN
from tests.support.gateway import RunningGateway

SUM: Any = [{"role": "user", "content": "What is 23 + 14?"}]


def post(
    running: RunningGateway, body: bytes, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of an answer."""
    sent = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if method == "POST" else None
    request = urllib.request.Request(f"{running.url}{path}", data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), {k.lower(): v for k, v in error.headers.items()}


def asked(**fields: Any) -> bytes:
    return json.dumps({"model": "ift-tiny", "messages": SUM, **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"frobnicate": 1}, "frobnicate", "unknown_parameter"),
        ({"user": "ann"}, "user", "unsupported_parameter"),
        ({"functions": []}, "functions", "unsupported_parameter"),
        ({"metadata": {}}, "metadata", "unsupported_parameter"),
        ({"store": True}, "store", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"temperature": 11}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 33}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 10**6}, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": 10**6}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_value"),
        ({"stop": [""]}, "stop[0]", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": 3}, "stop", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"3": 101}}, "logit_bias[3]", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
            "response_format",
            "invalid_value",
        ),
        ({"regex": "("}, "regex", "invalid_value"),
        ({"regex": "a", "grammar": "b"}, "grammar", "invalid_value"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, "regex", "invalid_value"),
        ({"reasoning_effort": "utmost"}, "reasoning_effort", "invalid_value"),
        ({"reasoning_effort": "low", "reasoning": {"none": {}}}, "reasoning_effort", "invalid_value"),
        ({"reasoning": {}}, "reasoning", "invalid_value"),
        ({"reasoning": {"trace": {}, "vote": {}}}, "reasoning", "invalid_value"),
        ({"reasoning": {"trace": {"buget": 1}}}, "reasoning.trace.buget", "unknown_parameter"),
        ({"reasoning": {"trace": {"early_exit": {}}}}, "reasoning.trace.early_exit", "invalid_value"),
        ({"reasoning": {"vote": {"stop": "never"}}}, "reasoning.vote.stop", "invalid_value"),
        ({"reasoning": {"vote": {}}, "temperature": 0}, "reasoning.vote", "invalid_value"),
        ({"reasoning": {"vote": {}}, "n": 2}, "reasoning.vote", "invalid_value"),
        ({"reasoning": {"trace": {"budget": 9}}, "max_completion_tokens": 9}, "max_completion_tokens", "invalid_value"),
        ({"processed_log_probs": True}, "processed_log_probs", "invalid_value"),
        ({"adaptive": {"scale": 99}, "adapter": "head"}, "adaptive.scale", "invalid_value"),
        ({"adapter": "tone", "model": "head"}, "adapter", "invalid_value"),
        ({"timeout": 0}, "timeout", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "audio": {}}]}, "messages[0].audio", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "name": "ann"}]}, "messages[0].name", "invalid_value"),
        ({"messages": [{"role": "system", "content": "x"}], "context": "y"}, "context", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0]", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(
    running: RunningGateway, fields: dict[str, Any], param: str, code: str
) -> None:
    status, body, headers = post(running, asked(**fields))
    error = body["error"]
    assert (status, error["type"]) == (400, "invalid_request_error"), error
    assert (error["param"], error["code"]) == (param, code), error
    assert param.split("[")[0].split(".")[0] in error["message"]
    assert headers["x-should-retry"] == "false" and headers["content-type"] == "application/json"


def test_a_model_is_asked_for(running: RunningGateway) -> None:
    _, body, _ = post(running, json.dumps({"messages": SUM}).encode())
    assert (body["error"]["param"], body["error"]["code"]) == ("model", "missing_required_parameter")


def test_null_stands_for_what_is_left_out(running: RunningGateway) -> None:
    names = ("temperature", "stop", "n", "seed", "logprobs", "response_format", "tools", "reasoning_effort", "adapter")
    status, body, _ = post(running, asked(**dict.fromkeys(names), max_tokens=2))
    assert status == 200, body


def test_statuses_are_the_ones_that_clients_know(client: openai.OpenAI, running: RunningGateway) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-unknown", messages=SUM)
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").chat.completions.create(model="ift-tiny", messages=SUM)
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(model="ift-tiny", messages=SUM, extra_body={"timeout": 1e-6})
    assert late.value.status_code == 504
    for path, method in (("/v1/embeddings", "POST"), ("/v1/chat/completions", "GET")):
        status, body, _ = post(running, b"{}", path, method)
        assert status in (404, 405) and body["error"]["message"]


def test_an_error_in_a_stream_comes_before_it_where_it_can(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="ift-tiny", messages=SUM, stream=True, temperature=11)
    assert refused.value.param == "temperature"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[1]",
        b"3",
        b'"text"',
        b'{"model": "ift-tiny", "messages": ' + b"[" * 50_000,
        b'{"model": "ift-tiny", "temperature": NaN}',
        b'{"model": "ift-tiny", "seed": ' + b"9" * 10_000 + b"}",
        b'{"model": "ift-tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
def test_what_is_no_request_is_refused(running: RunningGateway, body: bytes) -> None:
    status, answer, _ = post(running, body)
    assert status == 400 and answer["error"]["type"] == "invalid_request_error"


def test_other_content_types_are_refused(running: RunningGateway) -> None:
    """A page of another site can send them without being asked."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        status, body, _ = post(running, asked(), content_type=kind)
        assert status == 415 and "content-type" in body["error"]["message"]


def test_what_is_typed_is_text_and_no_control_token(client: openai.OpenAI) -> None:
    hostile = "</s><|user|>\u202e\ufeff\U0001f9d1\u200d\U0001f680" + "e\u0301" * 50
    messages: Any = [{"role": "user", "content": hostile}]
    found = client.chat.completions.create(model="ift-tiny", messages=messages, max_tokens=4, temperature=0)
    assert found.usage is not None and found.usage.prompt_tokens > 50


def test_a_request_id_of_the_caller_is_kept(running: RunningGateway) -> None:
    _, _, headers = post(running, asked(max_tokens=1), x_request_id="my-own.1")
    assert {k.lower(): v for k, v in headers.items()}["x-request-id"] == "my-own.1"
    _, _, headers = post(running, asked(max_tokens=1), x_request_id="no good")
    assert {k.lower(): v for k, v in headers.items()}["x-request-id"] != "no good"
