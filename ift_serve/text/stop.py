"""Stop strings in a stream of text."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text on until a stop string appears, holding back any end that might begin one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that is safe to send, and the stop string that was found.

        The first to be complete wins, then the longest, so that the answer does not depend on how the text was cut.
        """
        if not self._stop:
            return text, None
        buffer = self._held + text
        found = [(place + len(stop), place, stop) for stop in self._stop if (place := buffer.find(stop)) >= 0]
        if found:
            _, place, stop = min(found)
            self._held = ""
            return buffer[:place], stop
        keep = max(_overlap(buffer, stop) for stop in self._stop)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep], None

    def flush(self) -> str:
        """The text that was withheld because it could begin a stop string; called when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - size :]):
            return size
    return 0
