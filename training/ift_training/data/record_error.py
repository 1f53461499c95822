"""What is wrong with a record."""

from __future__ import annotations


class RecordError(ValueError):
    """A record that cannot be used; ``field`` names what is wrong, ``message`` says what to do."""

    def __init__(self, field: str, message: str) -> None:
        self.field, self.message = _printable(field), _printable(message)
        super().__init__(f"{self.field}: {self.message}")

    @property
    def kind(self) -> str:
        """What to count it by: the same for records with the same mistake."""
        return f"{self.field} {self.message.split(':')[0].split(';')[0]}"


def _printable(text: str) -> str:
    """JSON may hold half a surrogate pair, which no terminal and no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
