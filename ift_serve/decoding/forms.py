"""Forms of answers as llguidance's grammars, and what of them is refused for its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ift_serve.engine.protocol.output import OutputFormat

LONGEST_SCHEMA, LONGEST_GRAMMAR, LONGEST_REGEX = 2**16, 4096, 512
"""Bytes of a form's source. Regular expressions cost more than their length: 2,000 bytes of `.*` take a second."""
_CONSTANT_BYTES = 4096
"""Of one text that an answer must hold: what may come next in a long one takes a time that grows with its length."""
_PATTERN_BYTES = 2048
"""Of all regular expressions in a schema."""
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Of JSON: as Python writes it. Free white space lets a small model write nothing else."""
_MISSING = "structured output needs the package llguidance: pip install 'ift-serve[structured]'"


class FormatError(ValueError):
    """A form that cannot be used; the message says why."""


def grammar_of(output: OutputFormat) -> str:
    """The form as llguidance's grammar. Raises FormatError for what is no form, and where the package is missing."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise FormatError(_MISSING) from None
    longest = {"json_schema": LONGEST_SCHEMA, "grammar": LONGEST_GRAMMAR, "regex": LONGEST_REGEX}[output.kind]
    if len(output.text.encode()) > longest:
        raise FormatError(f"has more than {longest} bytes")
    try:
        match output.kind:
            case "json_schema":
                schema = json.loads(output.text)
                if not isinstance(schema, dict):
                    raise FormatError("a schema is a JSON object")
                if sum(len(pattern.encode()) for pattern in _patterns(schema)) > _PATTERN_BYTES:
                    raise FormatError(f"its patterns have more than {_PATTERN_BYTES} bytes")
                if any(len(text.encode()) > _CONSTANT_BYTES for text in _constants(schema)):
                    raise FormatError(f"one of its constants has more than {_CONSTANT_BYTES} bytes")
                grammar = LLMatcher.grammar_from_json_schema(schema, defaults=_LAYOUT)
            case "regex":
                grammar = LLMatcher.grammar_from_regex(output.text)
            case "grammar":
                grammar = LLMatcher.grammar_from_lark(output.text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"is not JSON: {error}" if output.kind == "json_schema" else str(error)) from error
    wrong = LLMatcher.validate_grammar(grammar)
    if wrong:
        raise FormatError(" ".join(wrong.split()))
    return grammar


def _patterns(schema: object) -> Iterator[str]:
    """The regular expressions in a schema."""
    if isinstance(schema, list):
        for entry in schema:
            yield from _patterns(entry)
    elif isinstance(schema, dict):
        for name, entry in schema.items():
            if name == "pattern" and isinstance(entry, str):
                yield entry
            elif name == "patternProperties" and isinstance(entry, dict):
                yield from entry
            yield from _patterns(entry)


def _constants(schema: object) -> Iterator[str]:
    """The texts that a schema asks for as they are."""
    if isinstance(schema, list):
        for entry in schema:
            yield from _constants(entry)
    elif isinstance(schema, dict):
        for name, entry in schema.items():
            if name in ("const", "enum"):
                yield from (text for text in (entry if isinstance(entry, list) else [entry]) if isinstance(text, str))
            yield from _constants(entry)
