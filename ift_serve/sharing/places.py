"""Places that callers share, so that no caller takes the last one from those who have few.

Dynamic thresholds (Choudhury and Hahne 1998, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches"): a
caller gets one more place while it has fewer than are free. One caller alone fills half of the places, ``n`` greedy
callers an ``n + 1``-th each, and as much stays free for whoever comes next: a caller that has none gets one while any
is free. No caller has to be known beforehand, and no place is kept for one that does not come.
"""

from __future__ import annotations

from collections import Counter


class Places:
    """``total`` places and who has them; make it twice what one caller alone shall have."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._held: Counter[str] = Counter()

    def held(self, caller: str) -> int:
        """Places of one caller."""
        return self._held.get(caller, 0)

    def has_room(self, caller: str) -> bool:
        """Whether the caller may have one more."""
        return self.held(caller) < self.total - self.taken

    def take(self, caller: str) -> None:
        """One more place of the caller, who has asked ``has_room``."""
        self._held[caller] += 1
        self.taken += 1

    def leave(self, caller: str) -> None:
        """One place less."""
        self.taken -= 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
