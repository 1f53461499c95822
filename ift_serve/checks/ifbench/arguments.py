"""Arguments of IFBench's instructions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _whole(value: Any) -> Any:
    """Whole numbers are floats in the benchmark's files, because other rows have none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1_000_000)]
Position = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=1_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=100_000)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
