"""What a decoding strategy is to the engine, and what it may do.

A request is a set of sequences driven by one strategy. A strategy decides with tokens and their
statistics; it never sees a tensor, a block or a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ift_serve.engine.core.step import SampledToken
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.results import FinishReason

HIDDEN = -1
"""The candidate of a sequence whose tokens are kept back until ``Control.reveal``."""


class Branch(Protocol):
    """One sequence as its strategy sees it. Read only; changes go through ``Control``."""

    @property
    def ordinal(self) -> int:
        """0 for the request's first sequence, counting up in order of creation."""

    @property
    def candidate(self) -> int:
        """The candidate that receives its tokens, or ``HIDDEN``."""

    @property
    def generated(self) -> list[int]:
        """A copy of its tokens after the prompt."""

    @property
    def generated_count(self) -> int:
        """How many tokens it has after the prompt."""

    @property
    def record(self) -> list[SampledToken]:
        """Every generated token with its statistics; empty unless the strategy ``records``."""

    @property
    def ended(self) -> FinishReason | None:
        """Why it ended; None while it runs."""


class Control(Protocol):
    """What a strategy may do to the sequences of its request, from within its callbacks.

    Sequences advance together. A sibling may have drawn a token that the strategy will be told of later in the
    same step; until then it is not there: a fork does not have it, and forcing tokens discards it.
    """

    @property
    def sampling(self) -> SamplingParams:
        """The request's parameters."""

    @property
    def live(self) -> list[Branch]:
        """Sequences that have not ended, in order of creation."""

    def fork(self, branch: Branch, *, candidate: int = HIDDEN, replace_last: int | None = None) -> Branch:
        """A new sequence with the same tokens, sharing their cache blocks; the last token may be another one.

        It keeps the temperature of ``branch`` and draws with a seed derived from that of ``branch``. Forking
        an ended branch is allowed until the request ends and recomputes what is no longer cached.
        """

    def force(self, branch: Branch, token_ids: list[int], *, replace_last: bool = False) -> None:
        """Append tokens as if they had been drawn, computed in one go before the next draw.

        With ``replace_last`` the token just drawn is taken back first, and with it the end it may have meant;
        that is for the branch whose ``on_token`` is running.
        Forced tokens carry statistics of zeros.
        """

    def stop(self, branch: Branch, reason: FinishReason = FinishReason.STOP) -> None:
        """End one sequence now and free its blocks."""

    def finish(self, reason: FinishReason = FinishReason.STOP) -> None:
        """End every live sequence and the request."""

    def reveal(self, branch: Branch, candidate: int) -> None:
        """Send a hidden sequence's tokens, those so far and those to come, as this candidate."""

    def set_temperature(self, branch: Branch, temperature: float) -> None:
        """Draw this sequence's next tokens at ``temperature`` (0: greedy)."""


class Strategy(Protocol):
    """Drives one request. Created for it alone, so it may keep state."""

    @property
    def width(self) -> int:
        """Sequences that start from the prompt, which is computed once for all of them."""

    @property
    def streams(self) -> bool:
        """Whether the first sequences are candidates 0, 1, ...; else they start hidden."""

    @property
    def records(self) -> bool:
        """Whether sequences keep all their tokens' statistics; needed to fork after the first token."""

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """``token`` was drawn and appended; ``reason`` is set when it ends the sequence unless replaced."""

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        """``branch`` ended by itself (not through ``Control``). When no sequence is left the request ends."""


StrategyFactory = Callable[[GenerateRequest], Strategy]
"""May raise ``RefusedError`` for parameters that the strategy cannot work with."""
Strategies = Mapping[str, StrategyFactory]
