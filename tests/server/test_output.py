"""Answers of a form, over the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from ift_serve.client import Branch, Grammar, JsonSchema, Regex, ServerError
from ift_serve.server.config import ServerConfig
from tests.support.serving import serving

pytest.importorskip("llguidance", reason="structured output needs llguidance")

PROMPT = "Name a colour."


async def test_answers_are_of_the_form_that_was_asked_for(server_config: Callable[..., ServerConfig]) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    async with serving(server_config()) as (_, client):
        found = await client.generate(PROMPT, output=JsonSchema(schema), n=3, temperature=1.0, max_new_tokens=60)
        for candidate in found.candidates:
            assert json.loads(candidate.text)["colour"] in ("red", "blue")
        text = "".join([d.text async for d in client.stream(PROMPT, output=Regex("(red|blue){2}!"), max_new_tokens=60)])
        assert re.fullmatch("(red|blue){2}!", text)
        both: list[Regex | Grammar] = [Regex("[ab]{2}c"), Grammar('start: "x" "y"')]
        texts = [(await client.generate(PROMPT, output=one, max_new_tokens=60)).text for one in both]
        assert re.fullmatch("[ab]{2}c", texts[0]) and texts[1] == "xy"


async def test_what_cannot_be_is_named(server_config: Callable[..., ServerConfig]) -> None:
    cases: list[tuple[JsonSchema | Regex | Grammar, dict[str, Any], set[str]]] = [
        (Regex("(a"), {}, {"output.regex"}),
        (JsonSchema("{"), {}, {"output.json_schema"}),
        (Grammar("start: missing"), {}, {"output.grammar"}),
        (Regex("a" * 1000), {}, {"output.regex"}),
        (Regex("a"), {"ignore_eos": True}, {"output.regex", "sampling.ignore_eos"}),
        (Regex("a"), {"reasoning": Branch()}, {"output.regex", "reasoning.branch"}),
    ]
    async with serving(server_config()) as (_, client):
        for output, options, fields in cases:
            with pytest.raises(ServerError) as error:
                await client.generate(PROMPT, output=output, **options)
            assert {violation.field for violation in error.value.violations} == fields
