"""Request bytes to messages, with the field that is to blame where they are not valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from ift_serve.server.errors import StatusError, invalid


def decoder(message_class: type[Any]) -> Callable[[bytes], Any]:
    """A deserialiser that returns a StatusError instead of raising, which grpc would report as INTERNAL."""

    def decode(data: bytes) -> Any:
        try:
            return message_class.FromString(data)
        except DecodeError:
            path = bad_text(message_class.DESCRIPTOR, data)
            if path is not None:
                return invalid(path, "is not valid UTF-8")
            return invalid("request", f"is not a {message_class.DESCRIPTOR.full_name} message")

    return decode


def bad_text(descriptor: Descriptor, data: bytes, prefix: str = "") -> str | None:
    """Path of the first string field that is not UTF-8; None where there is none or the bytes are no message."""
    seen: dict[int, int] = {}
    try:
        for number, payload in _fields(data):
            field = descriptor.fields_by_number.get(number)
            if field is None or payload is None:
                continue
            index = seen[number] = seen.get(number, -1) + 1
            repeated = bool(getattr(field, "is_repeated", False))
            path = f"{prefix}{field.name}[{index}]" if repeated else f"{prefix}{field.name}"
            if field.type == FieldDescriptor.TYPE_STRING:
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    return path
            elif field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
                found = bad_text(field.message_type, payload, f"{path}.")
                if found is not None:
                    return found
    except (IndexError, ValueError):
        return None
    return None


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Field numbers with their payloads; None for numbers. Raises IndexError or ValueError on broken bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        payload = None
        if kind == 0:
            _, place = _varint(data, place)
        elif kind == 1:
            place += 8
        elif kind == 5:
            place += 4
        elif kind == 2:
            size, place = _varint(data, place)
            payload, place = data[place : place + size], place + size
        else:
            raise ValueError("groups are not used")
        yield key >> 3, payload


def raise_if_error(request: Any) -> None:
    """Raise what the deserialiser returned in place of a message."""
    if isinstance(request, StatusError):
        raise request
