"""Hold the wire contract against the one that callers were built with: what was said once keeps its meaning.

``python protos/compatibility.py`` names what the committed stubs break of ``baseline.binpb``, as ``buf breaking`` does;
with ``--write`` it makes the stubs the baseline, which is for a release: whatever the baseline holds stays for ever.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

PROTOS = Path(__file__).parent
BASELINE = PROTOS / "baseline.binpb"
STUBS = ("inference_pb2", "reasoning_pb2", "model_pb2", "adapter_pb2")

Facts = dict[str, str]
"""What callers rely on, by the name of each element."""


def described() -> FileDescriptorSet:
    """The committed stubs as descriptors."""
    found = FileDescriptorSet()
    for name in STUBS:
        importlib.import_module(f"ift_serve.v1.{name}").DESCRIPTOR.CopyToProto(found.file.add())
    return found


def breaking(before: FileDescriptorSet, after: FileDescriptorSet) -> list[str]:
    """What ``after`` removes, renumbers, retypes or renames of ``before``; additions break nobody."""
    old, new = _facts(before), _facts(after)
    return [
        f"{name}: was {fact}, is {new.get(name, 'gone')}" for name, fact in old.items() if new.get(name, "gone") != fact
    ]


def _facts(described: FileDescriptorSet) -> Facts:
    return {name: fact for file in described.file for name, fact in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for message in file.message_type:
        yield from _of_message(message, f"{file.package}.{message.name}")
    for enum in file.enum_type:
        yield from _of_enum(enum, f"{file.package}.{enum.name}")
    for service in file.service:
        for method in service.method:
            streams = f"{'stream ' if method.client_streaming else ''}{method.input_type}"
            answers = f"{'stream ' if method.server_streaming else ''}{method.output_type}"
            yield f"{file.package}.{service.name}.{method.name}", f"rpc ({streams}) returns ({answers})"


def _of_message(message: DescriptorProto, name: str) -> Iterator[tuple[str, str]]:
    yield name, "a message"
    for field in message.field:
        yield f"{name}.{field.name}", _field(field, message)
    for nested in message.nested_type:
        yield from _of_message(nested, f"{name}.{nested.name}")
    for enum in message.enum_type:
        yield from _of_enum(enum, f"{name}.{enum.name}")


def _field(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type)
    label = FieldDescriptorProto.Label.Name(field.label)
    within = ""
    if field.HasField("oneof_index"):
        within = " optional" if field.proto3_optional else f" in {message.oneof_decl[field.oneof_index].name}"
    return f"{label} {kind} = {field.number}{within}"


def _of_enum(enum: EnumDescriptorProto, name: str) -> Iterator[tuple[str, str]]:
    yield name, "an enum"
    for value in enum.value:
        yield f"{name}.{value.name}", str(value.number)


def main(arguments: list[str]) -> int:
    """0 where nothing is broken, or the baseline was written."""
    present = described()
    if arguments == ["--write"]:
        BASELINE.write_bytes(present.SerializeToString(deterministic=True))
        return 0
    broken = breaking(FileDescriptorSet.FromString(BASELINE.read_bytes()), present)
    print("\n".join(broken) or "nothing is broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
