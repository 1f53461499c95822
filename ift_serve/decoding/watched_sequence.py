"""One sequence as its strategy follows it: its phases, its stop strings, the text and the tokens of its answer."""

from __future__ import annotations

from collections.abc import Iterable

from ift_serve.decoding.answer_tokens import PathText
from ift_serve.decoding.sequence_rules import SequenceRules, forbidden_in
from ift_serve.engine.core.strategy import Branch, Control, LimitError
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken
from ift_serve.text.detokenizer import Piece, PieceStream
from ift_serve.text.phases import Channel, ChannelPiece, ChannelRouter, Phase, PhaseState
from ift_serve.text.stop import StopMatcher
from ift_serve.text.token_texts import TokenDecoder

ALTERNATIVES = 20
"""The most likely tokens that the engine can tell beside a drawn one."""


class _AnswerRouter:
    """Tokens to pieces where nothing is told apart: all of them are answer."""

    def __init__(self, decoder: TokenDecoder) -> None:
        self._stream = PieceStream(decoder)
        self._special = decoder.special
        self._positions: list[int] = []
        self._pushed = self._known = 0

    def push(self, token_ids: Iterable[int]) -> list[ChannelPiece]:
        pieces: list[ChannelPiece] = []
        for token_id in token_ids:
            if token_id not in self._special:
                self._positions.append(self._pushed)
                pieces += self._placed(self._stream.push([token_id]))
            self._pushed += 1
        return pieces

    def flush(self) -> list[ChannelPiece]:
        return self._placed(self._stream.flush())

    def _placed(self, pieces: Iterable[Piece]) -> list[ChannelPiece]:
        placed = []
        for piece in pieces:
            position = self._positions[self._known]
            self._known += 1
            placed.append(ChannelPiece(Channel.ANSWER, position, piece.token_id, piece.text, piece.raw))
        return placed


class WatchedSequence:
    """Follows the tokens of ``branch``, from those that it has."""

    def __init__(self, rules: SequenceRules, branch: Branch) -> None:
        self.branch = branch
        self._rules = rules
        self._router: ChannelRouter | _AnswerRouter
        self.state: PhaseState | None = None
        if rules.start is None:
            self._router = _AnswerRouter(rules.decoder)
        else:
            self.state = rules.start.copy()
            self._router = ChannelRouter(self.state, rules.decoder)
        self._stops = StopMatcher(rules.stop)
        self._answer: list[ChannelPiece] = []
        self._answer_length = 0
        """Characters of the answer that are before any stop string."""
        self._has_stopped = self._is_flushed = False
        self._begun = False
        self._forbidden = rules.first_forbidden
        self._thought_tail = ""
        self.is_kept = True
        """Whether the token that was observed last is one of the sequence, and not taken back."""

    def replay(self, token_ids: Iterable[int]) -> WatchedSequence:
        """Take in tokens that a fork has from its parent."""
        ids = list(token_ids)
        self._begun = bool(ids)
        self._take(ids)
        return self

    def observe(self, control: Control, token: SampledToken, reason: FinishReason | None) -> FinishReason | None:
        """Take in the token that was just drawn, force what must follow it.

        ``reason``: why it ends the sequence, as the engine says. Returns why the sequence is over, None if it goes on.
        Where it is over by more than ``reason``, the caller ends it.
        """
        over = self._observe(control, token, reason)
        if over is None and self.state is not None and self._rules.thought_temperature is not None:
            control.set_temperature(self.branch, self._rules.temperature_in(self.state.phase))
        if over is None:
            self._forbid(control)
        return over

    def _forbid(self, control: Control) -> None:
        """Have the next draw leave alone what would close a thought, or end, before it has its minimum."""
        forbidden = None if self.state is None else forbidden_in(self.state)
        if forbidden != self._forbidden:
            self._forbidden = forbidden
            control.forbid(self.branch, forbidden)

    def _observe(self, control: Control, token: SampledToken, reason: FinishReason | None) -> FinishReason | None:
        state, token_id = self.state, token.token_id
        self.is_kept, self._thought_tail = True, self._thought_tail[-1:]
        if state is not None:
            if not self._begun and state.expected:
                # Tokens that must come before the next draw replace the one that was drawn.
                self._begun, self.is_kept = True, False
                return self._force(control, state.expected, replace_last=True)
            self._begun = True
            if reason is FinishReason.STOP and state.stops_are_dormant:
                # A stop token inside a thought is text.
                return self._force(control, (token_id,), replace_last=True)
        if reason in (FinishReason.EOS, FinishReason.STOP):
            return reason
        self._take([token_id])
        if state is not None and state.expected:
            over = self._force(control, state.expected)
            if over is not None:
                return over
        if self._has_stopped:
            return FinishReason.STOP
        limit = self._rules.answer_limit
        if limit is not None and state is not None and state.answer_tokens >= limit:
            return FinishReason.LENGTH
        return reason

    def close_thought(self, control: Control) -> FinishReason | None:
        """Close the thought from here, if it is one. Returns why the sequence is over if there is no room for it."""
        state = self.state
        if state is None or state.phase is not Phase.THOUGHT or state.expected:
            return None
        control.set_temperature(self.branch, self._rules.temperature)
        over = self._force(control, state.closing())
        self._forbid(control)
        return over

    def _force(
        self, control: Control, token_ids: tuple[int, ...], *, replace_last: bool = False
    ) -> FinishReason | None:
        """Append tokens, and what follows from them in turn."""
        try:
            control.force(self.branch, list(token_ids), replace_last=replace_last)
        except LimitError as error:
            if error.limit != "length":
                raise
            return FinishReason.LENGTH
        self._take(token_ids)
        if self.state is not None and self.state.expected:
            return self._force(control, self.state.expected)
        return FinishReason.STOP if self._has_stopped else None

    def _take(self, token_ids: Iterable[int]) -> None:
        self._read(self._router.push(token_ids))

    def _read(self, pieces: Iterable[ChannelPiece]) -> None:
        for piece in pieces:
            if piece.channel is Channel.REASONING:
                self._thought_tail += piece.text
                if self._answer:
                    # A thought that is opened again: what was before it is not what it comes to.
                    self._answer, self._answer_length, self._has_stopped = [], 0, False
                    self._stops = StopMatcher(self._rules.stop)
            elif piece.channel is Channel.ANSWER:
                self._answer.append(piece)
                if not self._has_stopped:
                    shown, found = self._stops.push(piece.text)
                    self._answer_length += len(shown)
                    self._has_stopped = found is not None

    def flush(self) -> None:
        """No more tokens come: withheld text is part of the answer."""
        if self._is_flushed:
            return
        self._is_flushed = True
        self._read(self._router.flush())
        if not self._has_stopped:
            self._answer_length += len(self._stops.flush())

    @property
    def ends_paragraph(self) -> bool:
        """Whether the token that was observed last completed an empty line of the thought, which goes on."""
        state = self.state
        is_thought = state is not None and state.phase is Phase.THOUGHT and not state.expected
        return is_thought and len(self._thought_tail) > 1 and self._thought_tail.endswith("\n\n")

    @property
    def is_cut(self) -> bool:
        """Whether it ends inside a thought, so that it has no answer."""
        return self.state is not None and self.state.phase is Phase.THOUGHT

    @property
    def answer_begin(self) -> int:
        """The index of the first token of its answer, among those after the prompt; of the last where it has no text.

        Whatever is before a thought that was opened again does not count.
        """
        if self.state is None:
            return 0
        return self._answer[0].position if self._answer else self.branch.generated_count - 1

    def answer(self) -> PathText | None:
        """The text of its answer with its tokens, up to a stop string; None where the thought was cut. Ends it."""
        self.flush()
        return None if self.is_cut else PathText(self._answer, self._answer_length)
