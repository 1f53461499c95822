"""Text on its way into a request."""

from __future__ import annotations

from collections.abc import Iterable

from ift_serve.client.errors import FieldViolation, InvalidRequestError


def utf8(field: str, text: str) -> str:
    """The text, which UTF-8 can carry. Raises InvalidRequestError with the place of a character that it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise InvalidRequestError(
            FieldViolation(
                field,
                f"holds a lone surrogate ({found}), which is no character; text that was read with "
                "errors='surrogateescape' must be decoded anew",
            )
        ) from None
    return text


def utf8_all(field: str, texts: Iterable[str]) -> list[str]:
    """As :func:`utf8`, for each of several."""
    return [utf8(f"{field}[{index}]", text) for index, text in enumerate(texts)]


def header(field: str, text: str) -> str:
    """A value for the call's metadata. Raises InvalidRequestError for what HTTP/2 does not carry; never shows it."""
    if not (text.isascii() and text.isprintable()):
        raise InvalidRequestError(FieldViolation(field, "holds a character that is not printable ASCII"))
    return text
