"""Tools through OpenAI's client: shown to the model by its chat template, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai
from transformers import AutoTokenizer

from tests.support.gateway import engine_server, gateway
from tests.support.models import tiny_llama
from tests.text.test_functions import CALL, TEMPLATE, WEATHER

QUESTION: dict[str, Any] = {"role": "user", "content": "Is it warm in Oslo?"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_llama(tmp_path_factory.mktemp("tools"), context=1024)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def caller(model: Path) -> Iterator[openai.OpenAI]:
    with (
        engine_server(model, {"dtype": "float32"}) as serving,
        gateway(serving.address) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def _prompt_tokens(caller: openai.OpenAI, **fields: Any) -> int:
    found = caller.chat.completions.create(model="tiny", max_tokens=1, temperature=0, **fields)
    assert found.usage is not None
    return int(found.usage.prompt_tokens)


def test_tools_calls_and_results_are_what_the_template_makes_of_them(caller: openai.OpenAI, model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    call = {**CALL, "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages: list[Any] = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "21 degrees", "tool_call_id": "1", "name": "weather"},
    ]
    plain = [QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]}, messages[2]]
    for count, tools in ((1, [WEATHER]), (3, [WEATHER]), (3, None)):
        wanted = tokenizer.apply_chat_template(
            plain[:count], tools=tools, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        asked: dict[str, Any] = {"messages": messages[:count], **({"tools": tools} if tools else {})}
        assert _prompt_tokens(caller, **asked) == len(wanted)


def test_no_tool_is_shown_where_none_is_to_be_called(caller: openai.OpenAI) -> None:
    shown = _prompt_tokens(caller, messages=[QUESTION], tools=[WEATHER])
    assert _prompt_tokens(caller, messages=[QUESTION], tools=[WEATHER], tool_choice="none") < shown
    assert _prompt_tokens(caller, messages=[QUESTION], tools=[WEATHER], tool_choice="auto") == shown


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "tools[0].function.strict"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        (
            {
                "messages": [
                    QUESTION,
                    {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]},
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": [{**QUESTION, "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"messages": [{**QUESTION, "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(caller: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        caller.post("/chat/completions", body={"model": "tiny", "messages": [QUESTION], **fields}, cast_to=object)
    assert refused.value.param == param, refused.value
