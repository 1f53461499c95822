"""Regular expressions of untrusted files: the subset that configurations use, matched in linear time by RE2.

Python's ``re`` backtracks, so a pattern of a few characters can keep it busy for years. RE2 does not, but its time
still grows with the product of a pattern's size and a text's length, so all patterns of a file share one budget.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

_LONGEST = 1024
_MEMORY = 1 << 18
"""Bytes of RE2's program and automaton for one pattern."""
_COST_OF_INSTRUCTION = 64
"""Compiling an instruction takes as long as running it on so many characters."""
_PLAIN = re.compile(r"(\^?)((?:[A-Za-z0-9_.]|\\\.)+)\$?")
_PIECES = re.compile(
    r"""
    (?P<repeated> (?: [*+?] | \{\d{1,4}(?:,\d{0,4})?\} ) \??+ )
  | \\[dDwWsSb] | \\[^\w\s]                            # an escape
  | \(\?: | \((?!\?)                                   # the beginning of a group
  | \[\^?+ (?: \\[dDwWsS] | \\[^\w\s] | [^\[\]\\] )++ \]  # a class
  | [^\\\[\]{}?*+(]
    """,
    re.VERBOSE,
)
"""What Python and RE2 read alike: no flags, references, look-arounds, nested classes or escapes of letters."""


class PatternError(ValueError):
    """A pattern that is not valid, not supported, or too much work."""


@dataclass(slots=True)
class Budget:
    """Work that may still be spent on patterns, in instructions run on a character, each 2 to 6 ns."""

    left: int = 60_000_000

    def spend(self, amount: int) -> None:
        """Raises PatternError when there is no more."""
        self.left -= amount
        if self.left < 0:
            raise PatternError("takes too long; write the modules out")


def _check_syntax(text: str) -> None:
    """Raises PatternError for what RE2 would read differently, or not at all, and for what Python does not accept."""
    if len(text) > _LONGEST:
        raise PatternError(f"has {len(text)} characters; at most {_LONGEST}")
    place, repeated = 0, False
    while place < len(text):
        found = _PIECES.match(text, place)
        if found is None:
            shown = text[place : place + {"\\": 2, "(": 3}.get(text[place], 1)]
            raise PatternError(f"has a {shown} that is not supported there")
        if found["repeated"] and repeated:
            raise PatternError("repeats a repetition")
        repeated = bool(found["repeated"])
        place = found.end()
    try:
        re.compile(text)
    except re.error as error:
        raise PatternError(f"is not valid: {error}") from None
    except RecursionError:
        raise PatternError("nests too deep") from None


@functools.cache
def _options() -> Any:
    import re2

    options = re2.Options()
    options.max_mem = _MEMORY
    options.never_capture = True
    options.log_errors = False
    return options


class Pattern:
    """A pattern that must match whole strings. Raises PatternError for what is not supported."""

    def __init__(self, text: str, budget: Budget) -> None:
        import re2

        _check_syntax(text)
        try:
            self._compiled = re2.compile(text, _options())
        except re2.error:
            # What Python accepts and the check above passes fails in RE2 by its size or depth only.
            raise PatternError("is too large; write the modules out") from None
        self._budget = budget
        self._size = int(self._compiled.programsize)
        budget.spend(self._size * _COST_OF_INSTRUCTION)

    def matches(self, text: str) -> bool:
        """Whether the whole text matches. Raises PatternError when the budget is spent."""
        self._budget.spend(self._size * (1 + len(text)))
        return self._compiled.fullmatch(text) is not None


class SuffixPattern:
    """PEFT's keys of ``rank_pattern`` and ``alpha_pattern``: match the path, or its end from a dot on."""

    def __init__(self, text: str, budget: Budget) -> None:
        plain = _PLAIN.fullmatch(text)
        self._anchored = bool(plain and plain[1])
        # A dot that is not escaped stands for any character.
        marked = plain[2].replace("\\.", "\0") if plain else ""
        self._any = frozenset(place for place, char in enumerate(marked) if char == ".")
        self._plain = marked.replace("\0", ".")
        self._pattern = None if plain else Pattern(rf"(?:.*\.)?(?:{text})", budget)

    def matches(self, path: str) -> bool:
        """Whether it is one for this module. Raises PatternError when the budget is spent."""
        if self._pattern is not None:
            return self._pattern.matches(path)
        before = len(path) - len(self._plain)
        if before < 0 or (before and (self._anchored or path[before - 1] != ".")):
            return False
        end = path[before:]
        if end == self._plain or not self._any:
            return end == self._plain
        return all(a == b or i in self._any for i, (a, b) in enumerate(zip(self._plain, end, strict=True)))
