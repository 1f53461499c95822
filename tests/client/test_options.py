"""The keyword arguments of the clients are the fields of the messages, under the same names and of the same types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Unpack, get_type_hints

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ift_serve.client import (
    AsyncClient,
    Client,
    DetailOptions,
    EvaluationOptions,
    GenerateOptions,
    SamplingOptions,
)
from ift_serve.client.convert import generate_message
from ift_serve.client.evaluations import run_message
from ift_serve.v1 import evaluation_pb2, inference_pb2

_SCALARS = {
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_STRING: "str",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
    FieldDescriptor.CPPTYPE_DOUBLE: "float",
}


def _scalar(field: FieldDescriptor) -> str:
    return _SCALARS.get(field.cpp_type, "int")


def _is_typed_as(field: FieldDescriptor, hint: str) -> bool:
    """Whether an annotation, as text, fits a field."""
    plain = hint.removesuffix(" | None")
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        return plain in (field.message_type.name, "Mapping[str, Any]")
    if field.message_type is not None:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return plain == f"Mapping[{_scalar(key)}, {_scalar(value)}]"
    return plain == (f"Sequence[{_scalar(field)}]" if field.is_repeated else _scalar(field))


@pytest.mark.parametrize(
    ("options", "message", "others"),
    [
        (SamplingOptions, inference_pb2.Sampling.DESCRIPTOR, set()),
        (DetailOptions, inference_pb2.Details.DESCRIPTOR, set()),
        (EvaluationOptions, evaluation_pb2.RunRequest.DESCRIPTOR, {"tasks"}),
    ],
)
def test_options_are_the_fields_of_their_message(options: type[Any], message: Descriptor, others: set[str]) -> None:
    hints = inspect.get_annotations(options)
    fields = {field.name: field for field in message.fields if field.name not in others}
    assert hints.keys() == fields.keys()
    for name, field in fields.items():
        written = hints[name].__forward_arg__
        assert _is_typed_as(field, written), f"{name}: {written}"


def test_a_request_has_an_option_for_each_of_its_fields() -> None:
    own = (
        set(GenerateOptions.__annotations__) - set(SamplingOptions.__annotations__) - set(DetailOptions.__annotations__)
    )
    for message in (inference_pb2.GenerateRequest, inference_pb2.StreamGenerateRequest):
        fields = set(message.DESCRIPTOR.fields_by_name) - {"prompt", "sampling", "details"}
        assert own == fields | {"max_total_tokens"}


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    names = [name for name in dir(Client) if not name.startswith("_")]
    assert names == [name for name in dir(AsyncClient) if not name.startswith("_")]
    for name in names:
        one, other = (inspect.signature(getattr(client, name)).parameters for client in (Client, AsyncClient))
        assert [str(parameter) for parameter in one.values()] == [str(parameter) for parameter in other.values()], name


@pytest.mark.parametrize(
    ("name", "options"), [("generate", GenerateOptions), ("stream", GenerateOptions), ("evaluate", EvaluationOptions)]
)
def test_what_is_passed_on_is_typed(name: str, options: type[Any]) -> None:
    """An editor that knows PEP 692 offers every option."""
    for client in (Client, AsyncClient):
        assert get_type_hints(getattr(client, name))["options"] == Unpack[options]  # type: ignore[valid-type]


@pytest.mark.parametrize(
    "build",
    [
        lambda options: generate_message(inference_pb2.GenerateRequest, "hi", options),
        lambda options: run_message(["adherence"], options),
    ],
)
def test_an_option_that_there_is_not_is_named(build: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="temprature"):
        build({"temprature": 0.5})
