"""What became of the data: how much was kept, what was dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 3


@dataclass
class SourceReport:
    """One source. tokens: of the kept records, of which targets are ``target_tokens``. where: first places a reason.

    messages: one whole message a reason, which says what to do.
    """

    name: str
    origin: str
    weight: float = 1.0
    read: int = 0
    kept: int = 0
    validation: int = 0
    tokens: int = 0
    target_tokens: int = 0
    longest: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    where: dict[str, list[str]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    sampled: bool = False
    notes: list[str] = field(default_factory=list)

    def keep(self, length: int, targets: int) -> None:
        """Count a record that became an example."""
        self.kept += 1
        self.tokens += length
        self.target_tokens += targets
        self.longest = max(self.longest, length)

    def drop(self, reason: str, where: Callable[[], str], message: str | None = None) -> None:
        """Count a record that did not; its place is asked for only while it will be shown, as is the first message."""
        self.dropped[reason] += 1
        self.messages.setdefault(reason, reason if message is None else message)
        places = self.where.setdefault(reason, [])
        if len(places) < _SHOWN:
            places.append(where())


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
        return sum(sum(s.dropped.values()) for s in self.sources)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {
            "examples_an_epoch": self.examples,
            "validation": self.validation,
            "mean_length": round(self.mean_length, 1),
            "longest": self.longest,
            "dropped": self.dropped,
            "sources": [{**asdict(s), "dropped": dict(s.dropped)} for s in self.sources],
        }

    def table(self) -> RenderableType:
        """For a terminal."""
        from rich.box import SIMPLE
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        title = f"data: {self.examples} examples an epoch, {self.validation} for validation"
        table = Table(title=title, box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
        table.add_column("source", overflow="ellipsis", no_wrap=True, max_width=24)
        for name in ("weight", "read", "kept", "valid.", "tokens", "longest", "dropped"):
            table.add_column(name, justify="right", no_wrap=True)
        for s in self.sources:
            origin = s.origin if s.origin.startswith(s.name) else f"{s.name}: {s.origin}"
            table.add_row(
                escape(origin), f"{s.weight:g}", f"{s.read}{'+' if s.sampled else ''}", str(s.kept), str(s.validation),
                f"{s.tokens:,}", str(s.longest), str(sum(s.dropped.values())),
            )  # fmt: skip
        return Group(table, *map(Text, self.reasons()))

    def reasons(self) -> list[str]:
        """For each reason of each source its number, one whole message, and the first places."""
        lines = []
        for source in self.sources:
            lines += source.notes
            for reason, count in source.dropped.most_common():
                more = ", ..." if count > len(source.where[reason]) else ""
                places = "; ".join(source.where[reason])
                lines.append(f"{source.name}: dropped {count}, {source.messages[reason]} ({places}{more})")
        return lines
