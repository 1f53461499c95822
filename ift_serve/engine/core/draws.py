"""Takes in what a step drew: a token at a time, those that drafted tokens let it know already among them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import isnan

from ift_serve.engine.cache.block_tables import BlockTables
from ift_serve.engine.core.request import Generation, Request
from ift_serve.engine.core.rounds import Rounds
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import SampledToken, SequenceStep

_log = logging.getLogger(__name__)

Fail = Callable[[Request, FailureKind, str, str], None]


class Draws:
    """The draws of all requests, counted from the start of the process. ``fail`` ends a request in the core.

    ``unsent``: requests that have drawn since that was emptied. ``told``: those of them whose strategy is to be told.
    """

    def __init__(self, rounds: Rounds, tables: BlockTables, fail: Fail) -> None:
        self._rounds = rounds
        self._tables = tables
        self._fail = fail
        self._now = 0.0
        self._told: dict[Generation, None] = {}
        self.unsent: list[Generation] = []
        self.prompt_tokens = self.generated_tokens = self.drafted_tokens = self.accepted_tokens = 0

    def begin(self, now: float) -> None:
        """A step's results come at this time."""
        self._now = now

    def take(self, sequence: Sequence, step: SequenceStep, token: SampledToken, drafted: list[SampledToken]) -> None:
        """What a sequence drew, and what it drew behind each drafted token."""
        request = sequence.owner
        assert isinstance(request, Generation)
        sequence.ahead = step.accepted(token, drafted) if drafted else []
        request.drafted_tokens += len(drafted)
        self.drafted_tokens += len(drafted)
        self._take(sequence, request, token)

    def tell(self, request: Generation) -> None:
        """Have the strategy of a request told once the step's results are taken in: a sequence of it was scored."""
        self._told[request] = None

    def end(self) -> None:
        """Tell the strategies whose rounds are complete, and again while drafted tokens complete others."""
        while self._told:
            told, self._told = self._told, {}
            for request in told:
                self._rounds.advance(request)
                # A round that scores complete may end its request in a step in which it draws nothing.
                self._note(request)
                for sequence in list(request.live):
                    if sequence not in request.drawn:
                        self._take_ahead(sequence, request)

    def _take_ahead(self, sequence: Sequence, request: Generation) -> None:
        """The next draw of a sequence, if it is known already."""
        if not sequence.ahead:
            return
        token = sequence.ahead.pop(0)
        request.account.served += 1
        request.accepted_tokens += 1
        self.accepted_tokens += 1
        self._tables.advance(sequence, sequence.computed + 1)
        self._take(sequence, request, token)

    def _take(self, sequence: Sequence, request: Generation, token: SampledToken) -> None:
        """One drawn token: it goes on at once, or waits for its siblings' where a strategy decides."""
        if token.token_id < 0:
            why = "" if sequence.constraint is None else sequence.constraint.error()
            message = f"{request.output_field}: {why}" if why else "masks and biases leave no token that could be drawn"
            self._fail(request, FailureKind.INVALID, message, request.output_field if why else "")
            return
        if isnan(token.statistics.log_prob):
            self.fail_unsound(sequence)
            return
        self._note(request)
        if not request.first_token:
            request.first_token = self._now
            self.prompt_tokens += request.prompt.length
        self.generated_tokens += 1
        request.drawn_tokens += 1
        if not request.is_passive:
            request.drawn[sequence] = token
            self.tell(request)
            return
        self._rounds.accept(sequence, token)
        if sequence.ended is None:
            self._take_ahead(sequence, request)

    def fail_unsound(self, sequence: Sequence) -> None:
        """The logits are not numbers: an adapter's values overflow, or the model itself is broken."""
        request = sequence.owner
        assert isinstance(request, Request)
        whose = "the model" if request.adapter is None else f"adapter {request.adapter.key}"
        _log.error("%s gives logits that are not finite", whose)
        self._fail(request, FailureKind.INTERNAL, f"{whose} gives logits that are not finite", "")

    def _note(self, request: Generation) -> None:
        if not request.has_new_tokens:
            request.has_new_tokens = True
            self.unsent.append(request)
