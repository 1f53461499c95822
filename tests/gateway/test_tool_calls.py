"""Calls read out of answers, by OpenAI's own client: answers that a form forces, whole and streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

import openai
from transformers import AutoTokenizer

from ift_serve.gateway.tool_calls import CallFormat, call_format, call_reader
from tests.support.gateway import engine_server, gateway
from tests.support.models import tiny_llama
from tests.text.test_functions import TEMPLATE, WEATHER

QUESTION: Any = {"role": "user", "content": "Is it warm in Oslo?"}
TOOLS: list[Any] = [WEATHER]
TOLD: dict[str, str] = {
    "hermes": 'Write <tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call>',
    "llama": 'Write {"name": function name, "parameters": dictionary}',
    "mistral": "[AVAILABLE_TOOLS]",
    "none": "",
}
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
LLAMA = '{"name": "weather", "parameters": {"city": "Oslo"}}'
MISTRAL = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}}]'
OSLO = [("weather", {"city": "Oslo"})]


def _template(form: str) -> str:
    """One that tells the model the form; Mistral's writes its marker where earlier calls stand."""
    told = TEMPLATE.replace("<|system|>", "<|system|>" + TOLD[form])
    return told.replace("{{ c.function.name }}", "[TOOL_CALLS]{{ c.function.name }}") if form == "mistral" else told


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], openai.OpenAI]]:
    with ExitStack() as stack:
        made: dict[str, openai.OpenAI] = {}

        def caller(form: str) -> openai.OpenAI:
            if form not in made:
                path = tiny_llama(tmp_path_factory.mktemp(form), context=1024)
                tokenizer = AutoTokenizer.from_pretrained(path)
                tokenizer.chat_template = _template(form)
                tokenizer.save_pretrained(path)
                serving = stack.enter_context(engine_server(path))
                running = stack.enter_context(gateway(serving.address))
                client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
                made[form] = stack.enter_context(client)
            return made[form]

        yield caller


def _ask(client: openai.OpenAI, answer: str, **fields: Any) -> Any:
    """The choice whose text the form forces."""
    asked: dict[str, Any] = {"tools": TOOLS, **fields}
    return client.chat.completions.create(
        model="tiny", messages=[QUESTION], max_tokens=300, extra_body={"regex": re.escape(answer)}, **asked
    )


def _calls(listed: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in listed or ()]


CASES = [
    ("hermes", HERMES, None, OSLO),
    ("hermes", f"I look.\n{HERMES}\n{HERMES}", "I look.", OSLO * 2),
    ("hermes", HERMES.replace('"Oslo"', "Oslo"), HERMES.replace('"Oslo"', "Oslo"), []),
    ("hermes", HERMES.replace("weather", "whether"), HERMES.replace("weather", "whether"), []),
    ("hermes", HERMES[:-5], HERMES[:-5], []),
    ("llama", LLAMA, None, OSLO),
    ("llama", f"{LLAMA}; {LLAMA}", None, OSLO * 2),
    ("llama", f"{LLAMA} is what I ask.", f"{LLAMA} is what I ask.", []),
    ("mistral", MISTRAL, None, OSLO),
    ("mistral", MISTRAL.removeprefix("[TOOL_CALLS] "), None, OSLO),
    ("mistral", MISTRAL[:-1], MISTRAL[:-1], []),
    ("none", HERMES, HERMES, []),
]


@pytest.mark.parametrize(("form", "answer", "text", "calls"), CASES)
def test_calls_are_read_out_of_whole_answers(
    callers: Callable[[str], openai.OpenAI], form: str, answer: str, text: str | None, calls: list[Any]
) -> None:
    (choice,) = _ask(callers(form), answer).choices
    assert (choice.message.content, _calls(choice.message.tool_calls)) == (text, calls)
    assert choice.finish_reason == ("tool_calls" if calls else "stop")
    ids = [call.id for call in choice.message.tool_calls or ()]
    assert len(set(ids)) == len(calls) and all(form != "mistral" or re.fullmatch("[a-z0-9]{9}", one) for one in ids)


@pytest.mark.parametrize(("form", "answer", "text", "calls"), CASES)
def test_a_stream_says_the_same(
    callers: Callable[[str], openai.OpenAI], form: str, answer: str, text: str | None, calls: list[Any]
) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": [QUESTION], "tools": TOOLS, "max_tokens": 300}
    with callers(form).chat.completions.stream(**fields, extra_body={"regex": re.escape(answer)}) as stream:
        (choice,) = stream.get_final_completion().choices
    assert (choice.message.content or None, _calls(choice.message.tool_calls)) == (text, calls)
    assert choice.finish_reason == ("tool_calls" if calls else "stop")


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": openai.NOT_GIVEN}])
def test_without_tools_to_call_all_is_text(callers: Callable[[str], openai.OpenAI], fields: dict[str, Any]) -> None:
    (choice,) = _ask(callers("hermes"), HERMES, **fields).choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (HERMES, None, "stop")


def test_an_answer_that_is_cut_keeps_its_reason(callers: Callable[[str], openai.OpenAI]) -> None:
    client = callers("hermes")
    cut = client.chat.completions.create(
        model="tiny", messages=[QUESTION], tools=TOOLS, max_tokens=4, extra_body={"regex": re.escape(HERMES)}
    ).choices[0]
    assert cut.finish_reason == "length" and not cut.message.tool_calls
    assert HERMES.startswith(cut.message.content or "no")


def test_a_call_can_be_given_back_with_its_result(callers: Callable[[str], openai.OpenAI]) -> None:
    client = callers("hermes")
    message = _ask(client, HERMES).choices[0].message
    result = {"role": "tool", "content": "21 degrees", "tool_call_id": message.tool_calls[0].id}
    messages: list[Any] = [QUESTION, message.model_dump(exclude_none=True), result]
    again = client.chat.completions.create(model="tiny", messages=messages, tools=TOOLS, max_tokens=2)
    assert again.choices[0].finish_reason == "length"


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("form", "answer", "text", "calls"), [case for case in CASES if case[0] != "none"])
def test_pieces_of_any_size_say_the_same(
    form: CallFormat, answer: str, text: str | None, calls: list[Any], size: int
) -> None:
    reader = call_reader(form, {"weather"})
    pieces = [answer[place : place + size] for place in range(0, len(answer), size)]
    found = [reader.add(piece, last=False) for piece in pieces] + [reader.add("", last=True)]
    assert "".join(one.text for one in found) == (text or "")
    assert [(c.name, json.loads(c.arguments)) for one in found for c in one.calls] == calls


@pytest.mark.parametrize(
    "answer",
    [
        '<tool_call>{"name": "weather", "arguments": {"n": NaN}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": ' + "[" * 100_000 + "</tool_call>",
        '<tool_call>{"name": "weather", "arguments": {"n": ' + "9" * 5000 + "}}</tool_call>",
        "<tool_call></tool_call>",
    ],
)
def test_what_is_no_call_stays_text(answer: str) -> None:
    found = call_reader("hermes", {"weather"}).add(answer, last=True)
    assert (found.text, found.calls) == (answer, [])


def test_half_a_character_stays_escaped() -> None:
    answer = '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800é"}}</tool_call>'
    (call,) = call_reader("hermes", {"weather"}).add(answer, last=True).calls
    assert json.loads(call.arguments) == {"city": "\ud800é"} and call.arguments.isascii()


def test_text_is_not_held_back_longer_than_it_may_be_a_call() -> None:
    reader = call_reader("hermes", {"weather"})
    assert [reader.add(piece, last=False).text for piece in ("a <", "b", " <tool", "_x")] == [
        "a",
        " <b",
        "",
        " <tool_x",
    ]
    assert call_reader("llama", {"weather"}).add("Hello", last=False).text == "Hello"


def test_the_form_is_the_templates() -> None:
    assert {form: call_format(_template(form)) for form in TOLD} == {
        "hermes": "hermes", "llama": "llama", "mistral": "mistral", "none": None,
    }  # fmt: skip
    assert call_format('{{- "<|python_tag|>" + tool_call.name }}') == "llama"
    assert call_format('Respond in the format {\\"name\\": function name, \\"parameters\\": x}') == "llama"
