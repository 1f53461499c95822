"""A request whose adapter left host memory: it holds its place, and is opened once the adapter is there again."""

from __future__ import annotations

from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.core.request import Request
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.sharing.accounts import Account


class Returning(Request):
    """Stands for ``message`` until then: it may be aborted, run out of time, or end with its adapter.

    Strategies may ask the adapter's heads when they are made, so the request itself is made afterwards. It has no
    sequences and is never scheduled.
    """

    def __init__(
        self,
        message: GenerateRequest | ScoreRequest,
        number: int,
        account: Account,
        now: float,
        adapter: AdapterVersion,
    ) -> None:
        super().__init__(message, number, account, now, adapter)
        self.message = message
        self.version = adapter

    def start(self, number: int) -> Sequence:
        """Never asked."""
        raise AssertionError("a request that waits for its adapter is not scheduled")

    @property
    def split_pending(self) -> bool:
        return False

    def split(self, root: Sequence, numbers: list[int]) -> list[Sequence]:
        """Never asked."""
        raise AssertionError("a request that waits for its adapter has no sequences")

    @property
    def width(self) -> int:
        return 0
