"""Regular expressions of strangers, matched by RE2, which never backtracks."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ift_serve.checks.check import Check
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed

_MEMORY = 1 << 18
"""Bytes of RE2's program and automaton for one expression; one that needs more is refused."""
_LONGEST = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")


@functools.lru_cache(maxsize=256)
def compiled(pattern: str, *, ignore_case: bool = False) -> Any:
    """An expression of RE2. Raises ValueError with what is wrong with it."""
    import re2

    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"{pattern!r:.80} is no expression that can be matched: {text}") from None


def searchable(text: str) -> str:
    """The text as RE2 can read it, character for character: a lone surrogate, which is no text, is one replacement."""
    return _SURROGATE.sub("\ufffd", text)


def _valid(pattern: str) -> str:
    compiled(pattern)
    return pattern


class Pattern(Check):
    """The response has, or has not, a part that matches a regular expression in RE2's syntax.

    ``(?i)`` at the beginning ignores case, ``(?s)`` lets a point match a newline, ``^`` and ``$`` stand for the ends
    of the whole response, and with ``(?m)`` for those of its lines. RE2 has no references back and no look-arounds.
    """

    type: Literal["pattern"] = "pattern"
    pattern: Annotated[str, Field(min_length=1, max_length=_LONGEST), AfterValidator(_valid)]
    wanted: bool = True

    def verdict(self, response: str, instruction: str = "") -> Verdict:
        """Points at the first match."""
        found = compiled(self.pattern).search(searchable(response))
        if self.wanted:
            return passed(found.span()) if found else failed(f"nothing matches {self.pattern!r}")
        return failed(f"something matches {self.pattern!r}", found.span()) if found else PASSED
