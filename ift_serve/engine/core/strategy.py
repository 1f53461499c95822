"""Interface of decoding strategies, and of the control they act by.

A request is a set of sequences driven by one strategy. A strategy decides with tokens and their
statistics; it never sees a tensor, a block or a batch.

Callbacks come in rounds. In one round every live sequence draws one token (or, where ``score`` asked for it, is
scored); once all have, they are told of in order of creation. So the order depends on the request alone, not on how
many rows were free or who else was served, and the same seed gives the same answer on any engine. A sequence that has
drawn waits for its siblings; until it is told of, its token is not there: a fork does not have it, and forcing tokens
discards it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ift_serve.engine.protocol.generate import Conclusion, GenerateRequest, SamplingParams
from ift_serve.engine.protocol.reasoning import RequestLimits
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.constraint import Constraint
from ift_serve.engine.sequences.step import SampledToken

HIDDEN = -1
"""The candidate of a sequence whose tokens are kept back until ``Control.reveal``."""


class LimitError(Exception):
    """What was asked for exceeds what the request may take. Where a strategy lets it pass, the request concludes.

    ``limit``: the name of the limit in ``RequestLimits``, or "length".
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


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

    Misuse raises ValueError, and the request fails; what exceeds the request's limits raises ``LimitError``.
    """

    @property
    def sampling(self) -> SamplingParams:
        """The request's parameters."""

    @property
    def limits(self) -> RequestLimits:
        """What the request may take."""

    @property
    def live(self) -> list[Branch]:
        """Sequences that have not ended, in order of creation."""

    def room(self, branch: Branch) -> int:
        """Tokens that a sequence may still get before its length limit."""

    def fork(
        self,
        branch: Branch,
        *,
        candidate: int = HIDDEN,
        replace_last: int | None = None,
        keep: int | None = None,
        is_free: bool = False,
    ) -> Branch:
        """A new sequence with the same tokens, sharing their cache blocks; the last token may be another one.

        ``keep``: how many of the tokens after the prompt it has, None: all; 0 begins at the prompt once more.
        ``is_free``: nothing holds it to the form that the answer must have; for a question that is no answer itself.
        It keeps the temperature of ``branch`` and draws with a seed derived from that of ``branch``; one that begins at
        the prompt draws as a first sequence of its ordinal would, whichever it was forked from. Forking an ended branch
        is allowed until the request ends and recomputes what is no longer cached.
        """

    def force(self, branch: Branch, token_ids: list[int], *, replace_last: bool = False) -> None:
        """Append tokens as if they had been drawn, computed in one go before the next draw; all of them or none.

        With ``replace_last`` the token just drawn is taken back first, and with it the end it may have meant;
        that is for the branch whose ``on_token`` is running.
        Forced tokens are marked as such in their statistics.
        """

    def score(self, branch: Branch, token_ids: list[int]) -> Branch:
        """A hidden sequence whose ``token_ids`` after those of ``branch`` are scored, not drawn: see ``on_score``."""

    def judge(self, branch: Branch, begin: int = 0) -> Branch:
        """A hidden sequence whose generated tokens from index ``begin`` on are judged: see ``on_judged``.

        The request's adapter must have an adherence head. What is before ``begin`` is not computed again while
        ``branch`` runs.
        """

    def stop(self, branch: Branch, reason: FinishReason = FinishReason.STOP) -> None:
        """End one sequence now and free its blocks."""

    def finish(self, reason: FinishReason = FinishReason.STOP) -> None:
        """End every live sequence and the request."""

    def reveal(self, branch: Branch, candidate: int) -> None:
        """Send a hidden sequence's tokens, those so far and those to come, as this candidate, which no other has."""

    def report(self, conclusion: Conclusion) -> None:
        """Send this with the request's last output; the last report counts."""

    def set_temperature(self, branch: Branch, temperature: float) -> None:
        """Draw this sequence's next tokens at ``temperature`` (0: greedy)."""

    def forbid(self, branch: Branch, token_ids: Iterable[int] | None) -> None:
        """Draw this sequence's next tokens from all but these and those that end a sequence; None: from all.

        It holds until the next call. A fork does not have it.
        """


class Strategy:
    """Drives one request. Created for it alone, so it may keep state. What is not overridden decides nothing.

    A class, or an object in its constructor, declares what it needs:
    """

    width: int = 1
    """Sequences that start from the prompt, which is computed once for all of them."""
    streams: bool = True
    """Whether the first sequences are candidates 0, 1, ...; else they start hidden."""
    records: bool = False
    """Whether sequences keep all their tokens' statistics; needed to fork after the first token."""
    alternatives: int = 0
    """The most likely tokens that it wants with every drawn one, whatever the caller asked for."""
    extra_tokens: int = 0
    """Tokens that a sequence may have beyond ``max_new_tokens``, such as a thought before its answer."""
    first_temperature: float | None = None
    """The temperature of its first sequences until it sets another one; None: the request's."""
    first_forbidden: tuple[int, ...] | None = None
    """What its first sequences must not draw until it says otherwise, as with ``Control.forbid``; None: nothing."""
    confidences: bool = False
    """Whether it reads ``SampledToken.confidence``, which an adapter may calibrate."""
    conclusion: Conclusion | None = None
    """What is sent with the last output unless it reports something else."""
    passive: bool = False
    """Whether it only lets its first sequences run: it is never called, and its sequences never wait for siblings
    unless they could take more tokens than the request may."""

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """``token`` was drawn and appended; ``reason`` is set when it ends the sequence unless replaced."""

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        """``branch`` ended, but not through ``Control``: an end token, its length, a stop string.

        The server process finds the latter. When no sequence is left the request ends.
        """

    def on_score(self, control: Control, branch: Branch, log_probs: list[float]) -> None:
        """The tokens that ``score`` was given have these log-probabilities; ``branch`` has ended."""

    def on_judged(self, control: Control, branch: Branch, adherence: float) -> None:
        """What ``judge`` asked: the probability that the answer follows its instruction; ``branch`` has ended."""

    def conclude(self, control: Control, reason: FinishReason) -> None:
        """The request ends now: its deadline, its caller's leaving, or its limits.

        Called once. What is revealed and reported here is still sent (unless the caller is gone); nothing can be forked
        or forced any more.
        """


ConstraintFactory = Callable[[GenerateRequest, Sequence[int]], Constraint | None]
"""For a request and the tokens that end its answers; None where it asks for no form. Raises ``RefusedError``."""
StrategyFactory = Callable[[GenerateRequest], Strategy]
"""May raise ``RefusedError`` for parameters that the strategy cannot work with."""
Strategies = Mapping[str, StrategyFactory]


def no_constraint(message: GenerateRequest, end_ids: Iterable[int]) -> Constraint | None:
    """The factory of an engine that holds no answers to a form. Raises RefusedError for a request that asks for one."""
    if message.output is not None:
        raise RefusedError(FailureKind.INVALID, "output: this engine holds no answers to a form", "output")
    return None
