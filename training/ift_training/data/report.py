"""Data report: how many records were kept, how many were dropped and why."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ift_training.data.record_error import Kind, RecordError

if TYPE_CHECKING:
    from rich.console import RenderableType

_PLACES = 3
_KINDS = 8
"""Kinds of mistakes that are told of one source; a file of another layout may have one a record."""
_GOOD_SHARE = 0.95
_ROUND_TO = 8
_MUCH = 0.2
"""The share of a source that is lost, from which it is shown in red."""


@dataclass(slots=True)
class Dropped:
    """Records with one kind of mistake: their number, the first one's message, the first places."""

    message: str
    count: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class SourceReport:
    """One source.

    path: where the recipe has it. tokens: of the kept records, of which targets are ``target_tokens``. lengths: tokens
    of the records that were kept or too long. tasks: kept records of each task that was read. typed: records that hold
    a control token, and ``markers`` how many times which. trained_on: families and checks of the kept records, by the
    names of adapter directories. listed: the file that names every dropped record. For the instruction loss only:
    judged: kept records with something that judges answers, ``contrasted`` of which got an answer that breaks it;
    unpaired: records with no wrong answer at all, which ``length_to_pair`` tokens would give each of them (0: there is
    no other answer).
    """

    name: str
    origin: str
    weight: float = 1.0
    path: str = ""
    read: int = 0
    kept: int = 0
    validation: int = 0
    tokens: int = 0
    target_tokens: int = 0
    longest: int = 0
    dropped: dict[Kind, Dropped] = field(default_factory=dict)
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    tasks: Counter[str] = field(default_factory=Counter)
    typed: int = 0
    markers: Counter[str] = field(default_factory=Counter)
    parsed: bool = False
    judged: int = 0
    contrasted: int = 0
    unpaired: int = 0
    length_to_pair: int = 0
    listed: str = ""
    trained_on: set[str] = field(default_factory=set)
    sampled: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Records dropped."""
        return sum(dropped.count for dropped in self.dropped.values())

    @property
    def usable(self) -> int:
        """Records that became examples, for training or for validation."""
        return self.tasks.total()

    @property
    def lost_share(self) -> float:
        """Of the records that were looked at."""
        return self.lost / self.read if self.read else 0.0

    def keep(self, length: int, targets: int, task: str) -> None:
        """Count a record that became an example."""
        self.kept += 1
        self.tokens += length
        self.target_tokens += targets
        self.longest = max(self.longest, length)
        self.lengths.append(length)
        self.tasks[task] += 1

    def drop(self, error: RecordError, where: Callable[[], str]) -> None:
        """Count a record that did not; its place is asked for only while it will be shown, as is the first message."""
        dropped = self.dropped.setdefault(error.kind, Dropped(f"{error.field} {error.message}"))
        dropped.count += 1
        if len(dropped.places) < _PLACES:
            dropped.places.append(where())

    def mark(self, markers: list[str]) -> None:
        """Count the control tokens that are typed into a record."""
        self.typed += bool(markers)
        self.markers.update(markers)

    def max_length_for(self, share: float) -> int | None:
        """The ``max_length`` that keeps a share of the records that have a length; None where none is too long."""
        ordered = sorted(self.lengths)
        if len(ordered) <= self.usable:
            return None
        return math.ceil(ordered[math.ceil(share * len(ordered)) - 1] / _ROUND_TO) * _ROUND_TO

    @property
    def unpaired_share(self) -> float:
        """Records without a wrong answer, of those that became examples."""
        return self.unpaired / self.usable if self.usable else 0.0

    def reasons(self) -> list[str]:
        """For each kind of mistake its number, one whole message, and the first places; then where all of them are."""
        ordered = sorted(self.dropped.values(), key=lambda dropped: -dropped.count)
        lines = []
        for dropped in ordered[:_KINDS]:
            more = f" and {unnamed} more" if (unnamed := dropped.count - len(dropped.places)) else ""
            lines.append(f"{self.name}: dropped {dropped.count}, {dropped.message} ({'; '.join(dropped.places)}{more})")
        if rest := ordered[_KINDS:]:
            lines.append(f"{self.name}: dropped {sum(d.count for d in rest)} for {len(rest)} more reasons")
        if self.listed and self.lost:
            lines.append(f"{self.name}: {self.listed} names each of the {self.lost} with its place, field and reason")
        elif rest or self.lost > sum(len(dropped.places) for dropped in ordered):
            lines.append(f"{self.name}: --dropped FILE names each of the {self.lost} with its place, field and reason")
        return lines

    def longer(self) -> list[str]:
        """The ``max_length`` that keeps what is too long."""
        good, whole = self.max_length_for(_GOOD_SHARE), self.max_length_for(1.0)
        if good is None:
            return []
        some = (
            ""
            if good == whole or self.usable >= _GOOD_SHARE * len(self.lengths)
            else f"{good} would keep 95 % of them, "
        )
        return [f"{self.name}: by length, max_length {some}{whole} would keep all"]

    def advice(self) -> list[str]:
        """What would keep more of the source, or train on it otherwise."""
        lines = self.longer()
        if self.typed:
            found = ", ".join(f"{content} {count}" for content, count in self.markers.most_common(4))
            more = ", ..." if len(self.markers) > 4 else ""
            lines.append(
                f"{self.name}: {self.typed} with control tokens typed in them ({found}{more}); "
                + (
                    "they are parsed: serve the adapter with --parse-special-tokens"
                    if self.parsed
                    else "they are trained on as plain text, as a server reads them. `parse_special_tokens: true` in "
                    "the recipe makes control tokens of them, as a server with --parse-special-tokens does"
                )
            )
        if self.unpaired:
            longer = f"; max_length {self.length_to_pair} would give each of them one" if self.length_to_pair else ""
            lines.append(
                f"{self.name}: {self.unpaired} of {self.usable} records have no wrong answer that fits behind them, so "
                f"the instruction loss sees their right answer only{longer}"
            )
        if self.contrasted < self.judged:
            lines.append(
                f"{self.name}: {self.judged - self.contrasted} of {self.judged} records with a check have no answer "
                "that breaks it and fits; the instruction loss takes other records' answers for them"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        names = (
            "name",
            "origin",
            "weight",
            "path",
            "read",
            "kept",
            "validation",
            "tokens",
            "target_tokens",
            "longest",
            "sampled",
            "notes",
            "typed",
            "judged",
            "contrasted",
            "unpaired",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "lost": self.lost,
            "markers": dict(self.markers),
            "max_length_for_95_percent": self.max_length_for(_GOOD_SHARE),
            "dropped": [
                {
                    "problem": kind.problem,
                    "field": kind.field,
                    "count": found.count,
                    "message": found.message,
                    "places": found.places,
                }
                for kind, found in self.dropped.items()
            ],
        }


@dataclass
class DataReport:
    """All sources of a recipe. ``examples`` an epoch is what the weights make of the records kept."""

    sources: list[SourceReport] = field(default_factory=list)
    examples: int = 0
    validation: int = 0

    @property
    def mean_length(self) -> float:
        """Tokens of an average kept record."""
        kept = sum(s.kept for s in self.sources)
        return sum(s.tokens for s in self.sources) / kept if kept else 0.0

    @property
    def longest(self) -> int:
        """Tokens of the longest kept record."""
        return max((s.longest for s in self.sources), default=0)

    @property
    def dropped(self) -> int:
        """Records dropped in all sources."""
        return sum(s.lost for s in self.sources)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "examples_an_epoch": self.examples,
            "validation": self.validation,
            "mean_length": round(self.mean_length, 1),
            "longest": self.longest,
            "dropped": self.dropped,
            "sources": [s.to_json() for s in self.sources],
        }

    def table(self) -> RenderableType:
        """For a terminal: what is lost is coloured."""
        from rich.box import SIMPLE
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        title = f"data: {self.examples} examples an epoch, {self.validation} for validation"
        table = Table(title=title, box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
        # The only column that is not `no_wrap` is the one that gives way where all do not fit.
        table.add_column("source", overflow="ellipsis", max_width=24)
        for name in ("weight", "read", "kept", "valid.", "tokens", "longest", "dropped"):
            table.add_column(name, justify="right", no_wrap=True)
        lines = []
        for s in self.sources:
            origin = s.origin if s.origin.startswith(s.name) else f"{s.name}: {s.origin}"
            lost = f"{s.lost} ({percent(s.lost_share)})" if s.lost else "0"
            colour = "" if not s.lost else "yellow" if s.lost_share < _MUCH else "bold red"
            table.add_row(
                Text(origin, no_wrap=True, overflow="ellipsis"),
                f"{s.weight:g}",
                f"{s.read}{'+' if s.sampled else ''}",
                str(s.kept),
                str(s.validation),
                f"{s.tokens:,}",
                str(s.longest),
                Text(lost, style=colour),
            )
            lines += [Text(line) for line in s.notes]
            lines += [Text(line, style=colour) for line in s.reasons()]
            lines += [Text(line, style="yellow") for line in s.advice()]
        return Group(table, *lines)

    def reasons(self) -> list[str]:
        """All that there is to say of the sources, a line each."""
        return [line for s in self.sources for line in (*s.notes, *s.reasons(), *s.advice())]


def percent(share: float) -> str:
    """A share for people: neither none nor all where it is a little more or less."""
    if 0 < share < 0.01:
        return "<1 %"
    return ">99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"
