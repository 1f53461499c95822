"""The commented recipe that `ift-serve train --init` writes, made from the settings themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ift_training.recipe import Recipe

_SOURCES = """\
sources:
  # Families of generated examples with checkers; `constraints` and `all` stand for groups of them.
  - procedural: [constraints]
    # Examples an epoch, over all its families.
    count: 4000
  # Files of records: JSON Lines, a JSON list, CSV, Parquet, .gz of these, or a directory of them. A record is
  # {"instruction": ..., "context": ..., "output": ...}, {"messages": [...]}, or as Alpaca, ShareGPT and others have it.
  # - file: examples.jsonl
  #   name: support                 # task name in reports and in task weights
  #   weight: 2.0                   # every record twice an epoch
  #   limit: 10000                  # use the first records only
  #   rename: {response: output}    # fields that are called otherwise
  #   ignore: [id, category]        # fields to pass over
  #   checks: [{type: end, phrase: "Over and out"}]   # what every answer must pass; scored during training
"""
_EXAMPLES: dict[str, Any] = {"output": "adapters/my-adapter"}
_WIDTH = 118


def recipe_template() -> str:
    """A recipe that runs as it is: every field with its default and what it means."""
    lines = [
        "# A training recipe for ift-serve. Check it: ift-serve train RECIPE --dry-run. Run it: ift-serve train RECIPE",
        "# Fields may be left out; these are the defaults. Files of records are looked for beside the recipe.",
        "",
    ]
    lines += _fields(Recipe, 0)
    return "\n".join(lines) + "\n"


def _fields(model: type[BaseModel], indent: int) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "sources":
            if model is Recipe:
                yield from ["", *_comment(field, indent), *_SOURCES.rstrip().splitlines()]
            continue
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            if not indent:
                yield ""
            yield from _comment(field, indent, nested)
            yield f"{' ' * indent}{name}:"
            yield from _fields(nested, indent + 2)
        else:
            yield from _comment(field, indent)
            yield f"{' ' * indent}{name}: {_value(name, field)}"


def _comment(field: FieldInfo, indent: int, model: type[BaseModel] | None = None) -> Iterator[str]:
    text = field.description or (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    if text:
        sentence = text[0].upper() + text[1:]
        yield from (f"{' ' * indent}# {line}" for line in textwrap.wrap(" ".join(sentence.split()), _WIDTH - indent))


def _value(name: str, field: FieldInfo) -> str:
    import yaml  # type: ignore[import-untyped]

    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        value = _EXAMPLES[name]
    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
