"""Regular expressions of files that nobody vouches for: the subset that configurations use, matched in linear time.

Python's ``re`` backtracks, so a pattern of a few characters can keep it busy for years. These are run as automata
(Thompson, "Regular expression search algorithm", 1968) whose transitions are remembered, under a budget of work.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_LONGEST = 1024
_DEEPEST = 32
_MOST_STATES = 4000
_MOST_COUNTED = 1000
_COST_OF_STATE = 10
_REMEMBERED_MOVES_FOR_ONE = 4
_PLAIN = re.compile(r"(\^?)((?:[A-Za-z0-9_.]|\\\.)+)\$?")
_COUNTS = re.compile(r"\{(\d{1,4})(,?)(\d{0,4})\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_CATEGORIES = "dDwWsS"
_SPECIAL = "\\^$.|?*+()[]{}"

Test = Callable[[str], object]


class PatternError(ValueError):
    """A pattern that is not valid, not supported, or too much work."""


@dataclass(slots=True)
class Budget:
    """Work that may still be spent on patterns, in visits of states; all of it is a fraction of a second."""

    left: int = 600_000

    def spend(self, amount: int) -> None:
        """Raises PatternError when there is no more."""
        self.left -= amount
        if self.left < 0:
            raise PatternError("takes too long; write the modules out")


@dataclass(slots=True)
class _State:
    """``test`` consumes a character; ``condition`` is an assertion; neither: a free move to all of ``out``."""

    test: Test | None = None
    condition: str = ""
    out: list[int] = field(default_factory=list)


class _Parser:
    """Builds the automaton from the end to the beginning: every part is told the state that follows it."""

    def __init__(self, text: str, budget: Budget) -> None:
        if len(text) > _LONGEST:
            raise PatternError(f"has {len(text)} characters; at most {_LONGEST}")
        budget.spend(len(text))
        self._budget = budget
        self._text = text
        self._at = 0
        self._depth = 0
        self.states = [_State()]  # number 0 accepts

    def parse(self) -> int:
        """The first state."""
        build = self._alternatives()
        if self._at < len(self._text):
            raise PatternError("has a ) without its (")
        return build(0)

    def _add(self, state: _State) -> int:
        self._budget.spend(_COST_OF_STATE)
        self.states.append(state)
        if len(self.states) > _MOST_STATES:
            raise PatternError("is too large; write the modules out")
        return len(self.states) - 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _alternatives(self) -> Callable[[int], int]:
        choices = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            choices.append(self._sequence())
        if len(choices) == 1:
            return choices[0]
        return lambda after: self._add(_State(out=[choice(after) for choice in choices]))

    def _sequence(self) -> Callable[[int], int]:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated())

        def build(after: int) -> int:
            for part in reversed(parts):
                after = part(after)
            return after

        return build

    def _repeated(self) -> Callable[[int], int]:
        atom = self._atom()
        mark = self._peek()
        if mark not in ("*", "+", "?", "{") or not mark:
            return atom
        low, high = self._counts(mark)
        if self._peek() == "?":
            self._at += 1  # lazy or greedy, a full match is the same
        if self._peek() and self._peek() in "*+?":
            raise PatternError("repeats a repetition")

        def build(after: int) -> int:
            if high is None:
                loop = self._add(_State())
                self.states[loop].out = [atom(loop), after]
                after = loop
            for _ in range(0 if high is None else high - low):
                after = self._add(_State(out=[atom(after), after]))
            for _ in range(low):
                # Also bounds repetitions of nothing, which would otherwise add no state.
                after = self._add(_State(out=[atom(after)]))
            return after

        return build

    def _counts(self, mark: str) -> tuple[int, int | None]:
        if mark != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[mark]
        found = _COUNTS.match(self._text, self._at)
        if found is None:
            raise PatternError("has a { that is no count; write \\{ for the character")
        self._at = found.end()
        low = int(found[1])
        high = None if found[2] and not found[3] else int(found[3] or low)
        if max(low, high or 0) > _MOST_COUNTED or (high is not None and high < low):
            raise PatternError("has a count that is too large or ends before it begins")
        return low, high

    def _atom(self) -> Callable[[int], int]:
        char = self._peek()
        if char == "(":
            return self._group()
        if char == "[":
            found = _CLASS.match(self._text, self._at)
            if found is None:
                raise PatternError("has a [ without its ]")
            self._at = found.end()
            return self._one(_safe_class(found[0]))
        self._at += 1
        if char == "\\":
            return self._escape()
        if char in "^$":
            condition = "start" if char == "^" else "end"
            return lambda after: self._add(_State(condition=condition, out=[after]))
        if char == ".":
            return self._one("\n".__ne__)
        if char in _SPECIAL:
            raise PatternError(f"has a {char} where none can be")
        return self._one(char.__eq__)

    def _group(self) -> Callable[[int], int]:
        self._at += 3 if self._text.startswith("(?:", self._at) else 1
        if self._peek() == "?":
            raise PatternError("has a group of a kind that is not supported; only ( and (?: are")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise PatternError(f"nests deeper than {_DEEPEST}")
        inner = self._alternatives()
        if self._peek() != ")":
            raise PatternError("has a ( without its )")
        self._at += 1
        self._depth -= 1
        return inner

    def _escape(self) -> Callable[[int], int]:
        char = self._peek()
        self._at += 1
        if char == "b":
            return lambda after: self._add(_State(condition="boundary", out=[after]))
        if char and char in _CATEGORIES:
            return self._one(re.compile("\\" + char).fullmatch)
        if not char or char.isalnum():
            raise PatternError(f"has the escape \\{char}, which is not supported")
        return self._one(char.__eq__)

    def _one(self, test: Test) -> Callable[[int], int]:
        return lambda after: self._add(_State(test=test, out=[after]))


def _safe_class(text: str) -> Test:
    try:
        return re.compile(text).fullmatch
    except re.error as error:
        raise PatternError(f"has a character class that is not valid: {error}") from None


def _is_word(char: str) -> bool:
    return char == "_" or char.isalnum()


class Pattern:
    """A pattern that must match whole strings. Raises PatternError for what is not supported."""

    def __init__(self, text: str, budget: Budget) -> None:
        parser = _Parser(text, budget)
        self._start = frozenset((parser.parse(),))
        self._states = parser.states
        self._budget = budget
        self._moves: dict[tuple[frozenset[int], str, str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether the whole text matches. Raises PatternError when the budget is spent."""
        self._budget.spend(1 + len(text) // _REMEMBERED_MOVES_FOR_ONE)
        current, before = self._start, ""
        for char in text:
            key = (current, before, char)
            following = self._moves.get(key)
            if following is None:
                following = self._moves[key] = self._step(current, before, char)
            if not following:
                return False
            current, before = following, char
        return 0 in self._reach(current, before, "")

    def _step(self, current: frozenset[int], before: str, char: str) -> frozenset[int]:
        following = set()
        for number in self._reach(current, before, char):
            state = self._states[number]
            if state.test is not None and state.test(char) not in (None, False):
                following.update(state.out)
        return frozenset(following)

    def _reach(self, current: frozenset[int], before: str, after: str) -> set[int]:
        """The states that free moves lead to, between two characters ("" at an end of the text)."""
        boundary = (bool(before) and _is_word(before)) != (bool(after) and _is_word(after))
        holds = {"": True, "start": not before, "end": not after, "boundary": boundary}
        reached, left = set(current), list(current)
        while left:
            state = self._states[left.pop()]
            if state.test is None and holds[state.condition]:
                new = [number for number in state.out if number not in reached]
                reached.update(new)
                left += new
        self._budget.spend(len(reached))
        return reached


class SuffixPattern:
    """PEFT's keys of ``rank_pattern`` and ``alpha_pattern``: match the path, or its end from a dot on."""

    def __init__(self, text: str, budget: Budget) -> None:
        plain = _PLAIN.fullmatch(text)
        self._anchored = bool(plain and plain[1])
        # A dot that is not escaped stands for any character.
        marked = plain[2].replace("\\.", "\0") if plain else ""
        self._any = frozenset(place for place, char in enumerate(marked) if char == ".")
        self._plain = marked.replace("\0", ".")
        self._pattern = None if plain else Pattern(rf"(.*\.)?({text})", budget)

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
