"""Structured output, as the engine is asked for it."""

from __future__ import annotations

from typing import Literal

import msgspec


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """``kind``: "json_schema", "regex" (Rust's regex syntax) or "grammar" (Lark's syntax); ``text``: its source."""

    kind: Literal["json_schema", "regex", "grammar"]
    text: str
