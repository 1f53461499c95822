"""Settings of strategies have the same names for the engine, on the wire, in the client and in the commands."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ift_serve.cli.reasoning import ReasoningOptions
from ift_serve.client import reasoning as client
from ift_serve.engine.protocol import reasoning as engine
from ift_serve.server.bounds import enum_names
from ift_serve.v1 import reasoning_pb2 as pb

PAIRS: list[tuple[type[msgspec.Struct], type[Any], Descriptor]] = [
    (engine.Trace, client.Trace, pb.Trace.DESCRIPTOR),
    (engine.Branch, client.Branch, pb.Branch.DESCRIPTOR),
    (engine.Vote, client.Vote, pb.Vote.DESCRIPTOR),
    (engine.BestOf, client.BestOf, pb.BestOf.DESCRIPTOR),
    (engine.Auto, client.Auto, pb.Auto.DESCRIPTOR),
    (engine.Registered, client.Registered, pb.Registered.DESCRIPTOR),
    (engine.AnswerSpan, client.AnswerSpan, pb.AnswerSpan.DESCRIPTOR),
    (engine.LowConfidence, client.LowConfidence, pb.LowConfidence.DESCRIPTOR),
]
_OPTIONS = {
    "reasoning": [field.name for field in pb.Reasoning.DESCRIPTOR.oneofs_by_name["kind"].fields[:-1]],
    "early_exit": [field.name for field in pb.EarlyExit.DESCRIPTOR.oneofs_by_name["rule"].fields],
    **{
        option: list(enum_names(enum, "").values())[1:]
        for option, enum in {
            "weight": pb.VoteWeight.DESCRIPTOR,
            "vote_stop": pb.VoteStop.DESCRIPTOR,
            "best_by": pb.BestOfMeasure.DESCRIPTOR,
            "answer": pb.AnswerKind.DESCRIPTOR,
        }.items()
    },
}
"""Choices of the commands' options, which name all but registered strategies."""


@pytest.mark.parametrize(("told", "given", "message"), PAIRS, ids=lambda one: getattr(one, "__name__", ""))
def test_every_field_has_one_name(told: type[msgspec.Struct], given: type[Any], message: Descriptor) -> None:
    fields = set(message.fields_by_name)
    assert set(told.__struct_fields__) == fields == {field.name for field in dataclasses.fields(given)}


def test_the_kinds_of_reasoning_are_those_of_the_engine() -> None:
    kinds = {field.name for field in pb.Reasoning.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert kinds == {kind.__struct_config__.tag for kind in get_args(engine.Reasoning)} | {"none"}


def test_an_early_exit_has_the_fields_of_both_rules() -> None:
    messages = (pb.EntropyExit.DESCRIPTOR, pb.ConfidenceExit.DESCRIPTOR)
    names = [field.name for field in pb.EarlyExit.DESCRIPTOR.oneofs_by_name["rule"].fields]
    rules = dict(zip(names, messages, strict=True))
    assert rules.keys() == set(get_args(engine.ExitRule)) == engine.EXIT_THRESHOLDS.keys()
    fields = {name for rule in rules.values() for name in rule.fields_by_name}
    assert set(engine.EarlyExit.__struct_fields__) == fields | {"rule", "prompt"}
    for rule, given in (("entropy", client.EntropyExit), ("confidence", client.ConfidenceExit)):
        assert {field.name for field in dataclasses.fields(given)} == set(rules[rule].fields_by_name) | {"prompt"}


def _choices(hint: Any) -> set[str]:
    """Names that a type of literals or of an enum, perhaps an optional one, allows."""
    if isinstance(hint, type) and issubclass(hint, engine.AnswerKind):
        return {kind.value for kind in hint}
    return {name for part in (get_args(hint) or ()) for name in (get_args(part) or (part,)) if isinstance(name, str)}


@pytest.mark.parametrize(
    ("told", "given", "field"),
    [(told, given, field) for told, given, message in PAIRS for field in message.fields if field.enum_type],
    ids=lambda one: getattr(one, "name", ""),
)
def test_every_choice_has_one_name(told: type[msgspec.Struct], given: type[Any], field: FieldDescriptor) -> None:
    assert field.enum_type is not None
    names = set(enum_names(field.enum_type, "").values()) - {""}
    assert names == _choices(get_type_hints(told)[field.name]) == _choices(get_type_hints(given)[field.name])


@pytest.mark.parametrize("option", _OPTIONS)
def test_the_options_of_the_commands_name_every_choice(option: str) -> None:
    shown = get_type_hints(ReasoningOptions, include_extras=True)[option].__metadata__[0].help
    assert shown.rpartition(": ")[2].split(", ") == _OPTIONS[option]


@pytest.mark.parametrize(
    ("told", "message"),
    [(told, message) for told, _, message in PAIRS],
    ids=lambda one: one.__name__ if isinstance(one, type) else "",
)
def test_the_defaults_that_the_protocol_names_are_the_engines(told: type[msgspec.Struct], message: Descriptor) -> None:
    """Of plain numbers and texts; in the comments of the fields."""
    source = Path(__file__).parents[2] / "protos/ift_serve/v1/reasoning.proto"
    found = re.search(
        rf"^message {message.name} {{\n(.*?)^}}", source.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    for comment, name in re.findall(r"((?:  //[^\n]*\n)+)  [^\n]*?(\w+) = \d+;", found[1]):
        default = re.search(r'Default ("[^"]*"|[\d.]*\d)', comment.replace("\n  //", ""))
        if default is not None:
            assert msgspec.json.decode(default[1]) == getattr(told(**_REQUIRED.get(told, {})), name), name


_REQUIRED: dict[type[msgspec.Struct], dict[str, Any]] = {engine.Registered: {"name": "x"}}
