"""An answer that a regular expression from outside finds: RE2, which is linear in the text whatever the pattern."""

from __future__ import annotations

import functools
from collections import deque
from typing import Any

from ift_serve.checks.extraction import Answer

_LONGEST = 1024
_MEMORY = 1 << 20


class AnswerPatternError(ValueError):
    """A pattern that RE2 does not take."""


@functools.cache
def _options() -> Any:
    import re2

    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    return options


class AnswerPattern:
    """The last match of a pattern in RE2 syntax: its first group where it has one, else all of it.

    Raises AnswerPatternError for what is not RE2, has more than 1,024 characters or compiles to more than a mebibyte.
    """

    def __init__(self, text: str) -> None:
        import re2

        if not text:
            raise AnswerPatternError("is empty")
        if len(text) > _LONGEST:
            raise AnswerPatternError(f"has {len(text)} characters; at most {_LONGEST}")
        try:
            self._compiled = re2.compile(text, _options())
        except re2.error as error:
            reason = error.args[0] if error.args else "unknown"
            shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
            raise AnswerPatternError(f"is not RE2: {shown}") from None
        self._group = 1 if self._compiled.groups else 0

    def find(self, response: str) -> Answer | None:
        """The answer; None where nothing matches, or the group of the last match took no part in it or is empty."""
        last = next(iter(deque(self._compiled.finditer(response), maxlen=1)), None)
        if last is None:
            return None
        begin, end = last.span(self._group)
        return Answer(response[begin:end], (begin, end)) if 0 <= begin < end else None
