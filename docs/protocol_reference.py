"""The page docs/protocol.md: every service, message and field of the .proto files with its comment."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "protocol.md"
_PACKAGE = ".ift_serve.v1."
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _ONEOF, _VALUE, _METHOD = 2, 8, 2, 2
"""Field numbers of descriptor.proto, of which the paths to comments are made."""
_HEAD = """# Protocol

Every service, message and field, as the comments in `protos/ift_serve/v1/` have it. Written by
`docs/protocol_reference.py`, which `make proto` runs; edit the .proto files, not this page. Errors are gRPC statuses
with google.rpc details: [Operating](operating.md#refusals) says what each means.
"""


@dataclass(frozen=True, slots=True)
class Comments:
    """The leading comments of one .proto file, by path (see ``SourceCodeInfo`` in descriptor.proto)."""

    texts: dict[tuple[int, ...], str]

    @classmethod
    def of(cls, file: FileDescriptorProto) -> Comments:
        """Lines joined; a comment is one paragraph."""
        found = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        return cls({path: " ".join(text.split()) for path, text in found.items() if text})

    def at(self, *path: int) -> str:
        """The comment there, empty if there is none."""
        return self.texts.get(path, "")

    def cell(self, *path: int) -> str:
        """The comment as a table's cell."""
        return self.at(*path).replace("|", "\\|")


def parsed(protos: Path) -> list[FileDescriptorProto]:
    """The package's files with their comments, generation first. Raises RuntimeError if protoc refuses them."""
    names = sorted((str(path.relative_to(protos)) for path in protos.glob("ift_serve/v1/*.proto")), key=_place)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        well_known = resources.files("grpc_tools") / "_proto"
        places = [f"-I{protos}", f"-I{well_known}"]
        arguments = ["protoc", *places, "--include_source_info", f"--descriptor_set_out={target}"]
        if protoc.main([*arguments, *names]) != 0:
            raise RuntimeError("protoc failed; its messages are above")
        return sorted(FileDescriptorSet.FromString(target.read_bytes()).file, key=lambda file: _place(file.name))


def _place(name: str) -> tuple[bool, str]:
    return not name.endswith("/inference.proto"), name


def page(protos: Path) -> str:
    """The whole page in Markdown."""
    lines = [_HEAD]
    for file in parsed(protos):
        comments = Comments.of(file)
        lines.append(f"## {Path(file.name).name}\n")
        for number, service in enumerate(file.service):
            lines += _service(service, comments, number)
        for number, message in enumerate(file.message_type):
            lines += _message(message, comments, number)
        for number, enum in enumerate(file.enum_type):
            lines += _enum(enum, comments, number)
    return "\n".join(lines)


def _service(service: ServiceDescriptorProto, comments: Comments, number: int) -> Iterator[str]:
    yield f"### {service.name}\n\n{comments.at(_SERVICE, number)}\n"
    yield "| rpc | takes | answers | |\n| --- | --- | --- | --- |"
    for index, method in enumerate(service.method):
        answer = f"stream of {_link(method.output_type)}" if method.server_streaming else _link(method.output_type)
        text = comments.cell(_SERVICE, number, _METHOD, index)
        yield f"| `{method.name}` | {_link(method.input_type)} | {answer} | {text} |"
    yield ""


def _message(message: DescriptorProto, comments: Comments, number: int) -> Iterator[str]:
    yield f"### {message.name}\n\n{comments.at(_MESSAGE, number)}\n"
    if not message.field:
        yield "No fields.\n"
        return
    yield "| field | type | no. | |\n| --- | --- | --- | --- |"
    for index, field in enumerate(message.field):
        text = comments.cell(_MESSAGE, number, _FIELD, index)
        if field.HasField("oneof_index") and not field.proto3_optional:
            group = comments.cell(_MESSAGE, number, _ONEOF, field.oneof_index)
            text = f"One of `{message.oneof_decl[field.oneof_index].name}`: {text}" + _only_first(message, index, group)
        yield f"| `{field.name}` | {_type(field, message)} | {field.number} | {text} |"
    yield ""


def _only_first(message: DescriptorProto, index: int, group: str) -> str:
    """What is said of a oneof as a whole stands beside its first field."""
    place = message.field[index].oneof_index
    first = next(i for i, f in enumerate(message.field) if f.HasField("oneof_index") and f.oneof_index == place)
    return f" (`{message.oneof_decl[place].name}`: {group})" if group and index == first else ""


def _enum(enum: EnumDescriptorProto, comments: Comments, number: int) -> Iterator[str]:
    yield f"### {enum.name}\n\n{comments.at(_ENUM, number)}\n"
    yield "| value | no. | |\n| --- | --- | --- |"
    for index, value in enumerate(enum.value):
        yield f"| `{value.name}` | {value.number} | {comments.cell(_ENUM, number, _VALUE, index)} |"
    yield ""


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    entry = next((n for n in message.nested_type if field.type_name.endswith(f".{message.name}.{n.name}")), None)
    if entry is not None and entry.options.map_entry:
        key, value = (_scalar(part) for part in entry.field)
        return f"map of {key} to {value}"
    name = _scalar(field)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _scalar(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(type_name: str) -> str:
    name = type_name.removeprefix(_PACKAGE)
    if name == type_name:
        return f"`{name.removeprefix('.')}`"
    return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(ROOT / "protos"), encoding="utf-8")
