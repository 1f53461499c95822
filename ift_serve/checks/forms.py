"""Checks of forms: bullet points, JSON and comma-separated lists."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from ift_serve.checks.check import Check, inner_span
from ift_serve.checks.json_text import parse_json
from ift_serve.checks.verdict import PASSED, Span, Verdict, failed

_MARK = "- "


class Bullets(Check):
    """Every line of the response that is not blank begins with a dash and a space, and has something after them."""

    type: Literal["bullets"] = "bullets"

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first line that is no bullet point."""
        start, end = inner_span(response)
        if start == end:
            return failed("empty answer")
        for line in response[start:end].splitlines(keepends=True):
            if line.strip() and not (line.startswith(_MARK) and not line[len(_MARK) :][:1].isspace() and line[2:]):
                return failed("a line does not begin with '- '", (start, start + len(line.rstrip())))
            start += len(line)
        return PASSED


class Json(Check):
    """The response is one JSON value and nothing else."""

    type: Literal["json"] = "json"

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at where the text stops being JSON."""
        try:
            parse_json(response)
        except ValueError as error:
            return failed(f"not JSON: {error}", _place(error, response))
        return PASSED


class JsonItems(Check):
    """The response is a JSON array of exactly these strings, in this order; how it is laid out is free."""

    type: Literal["json_items"] = "json_items"
    items: Annotated[tuple[str, ...], Field(strict=False)]

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at where the text stops being JSON, if it does."""
        try:
            found = parse_json(response)
        except ValueError as error:
            return failed(f"not JSON: {error}", _place(error, response))
        return PASSED if found == list(self.items) else failed("other items than asked for", inner_span(response))


class Commas(Check):
    """The response is one line of two or more items with a comma and a space between them; a full stop may follow."""

    type: Literal["commas"] = "commas"

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at nothing: the whole is no list."""
        items = response.strip().rstrip(".").split(", ")
        if len(items) < 2 or any(not item or "," in item or "\n" in item for item in items):
            return failed("not a comma-separated list")
        return PASSED


def _place(error: ValueError, response: str) -> Span | None:
    if not isinstance(error, json.JSONDecodeError):
        return None
    start, end = inner_span(response)
    return min(start + error.pos, end), end
