"""The commented recipe that `ift-serve train --init` writes, made from the settings themselves."""

from __future__ import annotations

import textwrap
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ift_serve.checks import CHECKS, fields_of
from ift_training.data.procedural import families
from ift_training.data.settings import SourceSettings
from ift_training.recipe import Recipe

_EXAMPLES: dict[str, Any] = {"output": "adapters/my-adapter"}
_KINDS = ("file", "procedural")
_FAMILIES = ["constraints"]
_FILE: dict[str, Any] = {"file": "examples.jsonl", "weight": 2.0, "checks": [{"type": "end", "phrase": "it is"}]}
_RECORDS = """\
A record is {"instruction": ..., "context": ..., "output": ...}, {"messages": [...]}, or as Alpaca, ShareGPT and others
have it."""
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
            yield from _sources(field) if model is Recipe else _leaf(name, field, indent)
            continue
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            if not indent:
                yield ""
            yield from _comment(field, indent, nested)
            yield f"{' ' * indent}{name}:"
            yield from _fields(nested, indent + 2)
        else:
            yield from _leaf(name, field, indent)


def _leaf(name: str, field: FieldInfo, indent: int) -> Iterator[str]:
    yield from _comment(field, indent)
    yield f"{' ' * indent}{name}: {_value(name, field)}"


def _sources(field: FieldInfo) -> Iterator[str]:
    """A source of each kind with every field that it may have; the one of a file is commented out."""
    yield from ["", *_comment(field, 0), "sources:"]
    yield from _source({"procedural": _FAMILIES, "count": 4000}, f"Families: {', '.join(families())}.")
    kinds = ", ".join(f"{name} ({', '.join(fields)})" if (fields := fields_of(name)) else name for name in CHECKS)
    yield "  # The lines that begin so, without the mark, make a source of a file:"
    for line in _source(_FILE, _RECORDS, f"Types of `checks`, with the fields that each must have: {kinds}."):
        yield f"  # {line[2:]}"
    yield ""


def _source(given: dict[str, Any], *notes: str) -> Iterator[str]:
    for note in notes:
        yield from _wrapped(note, 2)
    kind = next(iter(given))
    for name, field in SourceSettings.model_fields.items():
        if name == kind:
            yield from _comment(field, 2)
            yield f"  - {name}: {_yaml(given[name])}"
    for name, field in SourceSettings.model_fields.items():
        if name not in _KINDS and _may_have(kind, given[kind], name):
            yield from _comment(field, 4)
            yield f"    {name}: {_yaml(given[name]) if name in given else _value(name, field)}"


def _may_have(kind: str, value: Any, name: str) -> bool:
    """Whether a source of that kind may have the field."""
    default = SourceSettings.model_fields[name].get_default(call_default_factory=True)
    try:
        SourceSettings.model_validate({kind: value, name: default})
    except ValidationError:
        return False
    return True


def _comment(field: FieldInfo, indent: int, model: type[BaseModel] | None = None) -> Iterator[str]:
    text = field.description or (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    if choices := list(_choices(field.annotation)):
        others = field.annotation is not None and get_origin(field.annotation) is not Literal
        text += f"{'; or the word' if others else '; one of'}: {', '.join(choices)}"
    if text:
        yield from _wrapped(text[0].upper() + text[1:], indent)


def _choices(annotation: Any) -> Iterator[str]:
    """The words that a field may be set to."""
    if get_origin(annotation) is Literal:
        yield from (str(_plain(choice)) for choice in get_args(annotation))
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _choices(part)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(choice.value) for choice in annotation)


def _wrapped(text: str, indent: int) -> Iterator[str]:
    # Commented out once more, a line is four characters longer.
    for line in textwrap.wrap(" ".join(text.split()), _WIDTH - 4 - indent, break_on_hyphens=False):
        yield f"{' ' * indent}# {line}"


def _value(name: str, field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        value = _EXAMPLES[name]
    return _yaml(value)


def _yaml(value: Any) -> str:
    import yaml  # type: ignore[import-untyped]

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
