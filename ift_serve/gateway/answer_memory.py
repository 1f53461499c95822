"""Memory of answers that are kept until they are whole, shared by their callers."""

from __future__ import annotations

from collections import Counter
from types import TracebackType

from ift_serve.gateway.errors import ApiError


class AnswerMemory:
    """``total`` bytes, of which a caller gets more while it holds fewer than are free (see ``Places``)."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._held: Counter[str] = Counter()

    def share(self, caller: str) -> AnswerShare:
        """What one answer of a caller takes."""
        return AnswerShare(self, caller)

    def take(self, caller: str, size: int) -> None:
        """More bytes of a caller. Raises ApiError where there are none for it."""
        if self._held[caller] + size > self.total - self.taken:
            problem = "answers of this caller take all the memory that it may have until they are whole; stream them"
            raise ApiError(429, problem, None, "rate_limit_exceeded", 1.0)
        self._held[caller] += size
        self.taken += size

    def leave(self, caller: str, size: int) -> None:
        """Give bytes back."""
        self._held[caller] -= size
        self.taken -= size
        if not self._held[caller]:
            del self._held[caller]


class AnswerShare:
    """The bytes of one answer, given back at the end of the block."""

    def __init__(self, memory: AnswerMemory, caller: str) -> None:
        self._memory, self._caller = memory, caller
        self._size = 0

    def take(self, size: int) -> None:
        """More bytes. Raises ApiError."""
        self._memory.take(self._caller, size)
        self._size += size

    def __enter__(self) -> AnswerShare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.leave(self._caller, self._size)
