"""Finds the field that holds bytes that are not UTF-8, in a message that cannot be parsed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError

_MOST_VALUES = 10_000
"""Values that are looked at; a bad one behind them is not named."""


def bad_text_field(message_class: type[Any], data: bytes) -> str | None:
    """Path of the first string that is not UTF-8; None where none of the first values is.

    protobuf only says that there is one. It parses the same bytes into a twin of the message whose strings are bytes,
    which is then looked through.
    """
    descriptor = message_class.DESCRIPTOR
    twin = message_factory.GetMessageClass(_twins(descriptor.file).FindMessageTypeByName(descriptor.full_name))
    try:
        message = twin.FromString(data)
    except DecodeError:
        return None
    for path, value in itertools.islice(_values(message, ""), _MOST_VALUES):
        if isinstance(value, bytes):
            try:
                value.decode()
            except UnicodeDecodeError:
                return path
    return None


@functools.cache
def _twins(file: FileDescriptor) -> descriptor_pool.DescriptorPool:
    """The file's messages with bytes for strings."""
    pool = descriptor_pool.DescriptorPool()
    for needed in _with_dependencies(file):
        copy = descriptor_pb2.FileDescriptorProto()
        needed.CopyToProto(copy)
        for message in copy.message_type:
            _make_bytes(message)
        pool.Add(copy)
    return pool


def _with_dependencies(file: FileDescriptor) -> list[FileDescriptor]:
    """The file behind everything that it imports, each once."""
    found: dict[str, FileDescriptor] = {}
    for needed in file.dependencies:
        found |= {one.name: one for one in _with_dependencies(needed)}
    return [*(found | {file.name: file}).values()]


def _make_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        # Keys of maps cannot be bytes.
        if field.type == FieldDescriptor.TYPE_STRING and not message.options.map_entry:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _make_bytes(nested)


def _values(message: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Path and value of every field that is set, depth first."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        repeated = bool(field.is_repeated)
        for index, one in enumerate(value if repeated else [value]):
            where = f"{path}[{index}]" if repeated else path
            yield where, one
            if field.message_type is not None:
                yield from _values(one, f"{where}.")
