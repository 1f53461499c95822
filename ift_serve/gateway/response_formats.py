"""The form that an answer is to have, from ``response_format`` and our own ``regex`` and ``grammar``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from ift_serve.client import Grammar, JsonSchema, Regex
from ift_serve.gateway.errors import invalid
from ift_serve.gateway.fields import Strict

_LONGEST_SCHEMA = 64 * 1024


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFields(Strict):
    """``strict`` makes no difference: an answer is always of the schema."""

    name: str = Field(min_length=1, max_length=64)
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: SchemaFields


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


def output_of(
    form: TextFormat | JsonObjectFormat | JsonSchemaFormat | None, regex: str | None, grammar: str | None
) -> JsonSchema | Regex | Grammar | None:
    """What the client takes; None for any text. Raises ApiError where there are two forms."""
    found: dict[str, JsonSchema | Regex | Grammar] = {}
    match form:
        case JsonObjectFormat():
            found["response_format"] = JsonSchema({"type": "object"})
        case JsonSchemaFormat(json_schema=fields):
            if len(msgspec.json.encode(fields.schema_)) > _LONGEST_SCHEMA:
                raise invalid("response_format.json_schema.schema", f"has more than {_LONGEST_SCHEMA} bytes")
            found["response_format"] = JsonSchema(fields.schema_)
    if regex is not None:
        found["regex"] = Regex(regex)
    if grammar is not None:
        found["grammar"] = Grammar(grammar)
    if len(found) > 1:
        raise invalid(list(found)[1], f"cannot be had together with {next(iter(found))}")
    return next(iter(found.values()), None)
