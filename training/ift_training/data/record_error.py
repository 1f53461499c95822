"""What is wrong with a record."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\[\d+\]")


class RecordError(ValueError):
    """A record that cannot be used; ``field`` names what is wrong, ``message`` says what to do.

    kind: what is the same in all records with this mistake, where the message holds parts of the record.
    """

    def __init__(self, field: str, message: str, kind: str | None = None) -> None:
        self.field, self.message = _printable(field), _printable(message)
        self._kind = self.message if kind is None else kind
        super().__init__(f"{self.field}: {self.message}")

    @property
    def kind(self) -> str:
        """What to count it by: the same for records with the same mistake, wherever in the record it is."""
        return f"{_NUMBER.sub('[]', self.field)} {self._kind}"


def _printable(text: str) -> str:
    """JSON may hold half a surrogate pair, which no terminal and no file takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
