"""Which adapters all replicas are to have: one record of a deployment, kept by an actor of Ray's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

ACTOR = "adapters"


@dataclass(frozen=True, slots=True)
class Entry:
    """The last word on a name: load the directory as this ``version``, or without a version, do not have it.

    ``number`` grows with each word, so that of two the later is known, wherever it is met; 0: not recorded yet. The
    paths are as in :class:`ift_serve.frontend.wanted_adapters.AdapterSource`.
    """

    name: str
    version: str = ""
    path: str = ""
    shown_path: str = ""
    root: str = ""
    number: int = 0


class AdapterRecord:
    """Entries by name. Who asks says what it knows: so a new actor in the place of a dead one learns it again."""

    def __init__(self, known: Iterable[Entry] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self.merge(known)

    def merge(self, known: Iterable[Entry]) -> dict[str, Entry]:
        """What is known now, by name."""
        for entry in known:
            mine = self._entries.get(entry.name)
            if mine is None or mine.number < entry.number:
                self._entries[entry.name] = entry
        return dict(self._entries)

    def say(self, known: Iterable[Entry], word: Entry) -> Entry:
        """A new last word on a name; returned with its number."""
        self.merge(known)
        number = 1 + max((entry.number for entry in self._entries.values()), default=0)
        self._entries[word.name] = entry = replace(word, number=number)
        return entry

    def offer(self, known: Iterable[Entry], word: Entry) -> Entry:
        """What a replica has from its configuration: it stands only where there was no word on the name."""
        return self.merge(known).get(word.name) or self.say((), word)
