"""Structured output: a JSON schema, a regular expression or a grammar for the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ift_serve.client.texts import utf8
from ift_serve.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """``schema``: a JSON schema, as an object or as text."""

    schema: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Regex:
    """``pattern``: in Rust's syntax; the whole answer matches."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """``source``: in Lark's syntax; the whole answer is its ``start``."""

    source: str


Output = JsonSchema | Regex | Grammar


def output_message(output: Output | None) -> pb.Output | None:
    """The message; None where any form will do."""
    match output:
        case None:
            return None
        case JsonSchema(schema):
            text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
            return pb.Output(json_schema=utf8("output.json_schema", text))
        case Regex(pattern):
            return pb.Output(regex=utf8("output.regex", pattern))
        case Grammar(source):
            return pb.Output(grammar=utf8("output.grammar", source))
