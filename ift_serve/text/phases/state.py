"""The phases of one sequence as its tokens come: which is running, what must follow, where each token belongs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ift_serve.text.phases.scanner import HeldToken, MarkerFound, MarkerRule, MarkerScanner, TextPart
from ift_serve.text.phases.settings import Channel, Phase, PhaseSettings, ThoughtStart
from ift_serve.text.phases.turn import earlier_turns, last_turn

_UNLIMITED = 2**62
_LONGEST_REST = 3
"""The most tokens that a character takes after its first one."""


class Routed(NamedTuple):
    """A token, or a part of one, whose channel is known.

    ``position``: the token's place among the generated ones. ``text``: the bytes of the part, None for all of the
    token. ``counts``: true for one part of each token, by which the token counts for the channel.
    """

    position: int
    token_id: int
    channel: Channel
    text: bytes | None = None
    counts: bool = True


class Decision(NamedTuple):
    """What follows from a token.

    ``phase``: that of the next token. ``force``: ids that must come next, before anything is drawn; they are to be
    observed like any other. ``routed``: tokens whose channel has become known, in order.
    """

    phase: Phase
    force: tuple[int, ...]
    routed: tuple[Routed, ...]


class PhaseState:
    """A function of the prompt's ids and the generated ids alone, so computing tokens anew changes nothing.

    Any ids may be observed. Where they are not those that had to come, they count as drawn, and what has to come is
    asked for again.
    """

    __slots__ = (
        "_blank", "_budget", "_debt", "_missing", "_overlap", "_position", "_scanner", "_spent",
        "answer_tokens", "expected", "forced_tokens", "had_thought", "marker_tokens", "phase", "reasoning_tokens",
        "settings",
    )  # fmt: skip

    def __init__(self, settings: PhaseSettings) -> None:
        """The state before a turn of which nothing is written and no limit is known; see ``begin``."""
        self.settings = settings
        self.phase = Phase.ANSWER
        self.expected: tuple[int, ...] = ()
        """The ids that must come next."""
        self.had_thought = False
        """Whether a thought has begun in this turn."""
        self.reasoning_tokens = self.answer_tokens = self.marker_tokens = self.forced_tokens = 0
        """Generated tokens by channel, as far as it is known; of all of them, those that had to come."""
        self._position = 0
        self._budget = _UNLIMITED
        self._spent = 0
        """Drawn tokens of this turn that are known to be thought."""
        self._blank = True
        """Whether the phase has nothing but white space so far."""
        self._debt = False
        """Whether the model may still close the thought that was closed by force."""
        self._missing = 0
        """Bytes that the last character lacks."""
        self._overlap = 0
        """Ids of the closing message that the thought ends with."""
        self._scanner = MarkerScanner(settings.markers)
        self._set_rules()

    @classmethod
    def begin(cls, settings: PhaseSettings, prompt: Sequence[int] = (), segment_ids: bytes = b"") -> PhaseState:
        """The state before the first generated token. ``segment_ids``: one byte a token, or empty if unknown.

        ``expected`` may be set already: an exhausted budget, or a thought that is to be opened.
        """
        turn = last_turn(settings.markers, prompt, segment_ids)
        state = cls(settings)
        state._read(turn.token_ids)
        if not turn.is_known and state.phase is Phase.ANSWER and not state._blank:
            # Markers of a turn that is over.
            state = cls(settings)
        limits = [] if settings.budget is None else [settings.budget]
        if settings.total_budget is not None:
            earlier = sum(map(state._thought_tokens, earlier_turns(prompt, segment_ids)))
            limits.append(max(0, settings.total_budget - earlier))
        state._budget = min(limits, default=_UNLIMITED)
        state._start()
        return state

    def _read(self, token_ids: Sequence[int]) -> None:
        """Take in the turn's tokens that are in the prompt. White space behind the marker is the template's."""
        self._position = -len(token_ids)
        spent = 0
        for token_id in token_ids:
            self.observe(token_id)
            if self.phase is Phase.ANSWER:
                spent = self._spent
            elif self._blank:
                self._spent = spent

    def _thought_tokens(self, token_ids: Sequence[int]) -> int:
        state = PhaseState(self.settings)
        state._read(token_ids)
        return state.spent

    def _start(self) -> None:
        settings = self.settings
        if self.phase is Phase.ANSWER and not self.had_thought and self._blank and not self._scanner.held:
            if settings.start is ThoughtStart.IMPLICIT:
                self._enter_thought()
            elif settings.start is ThoughtStart.FORCED and self.remaining != 0:
                self.expected = settings.markers.opening[0].token_ids
        self._close_if_spent()

    def copy(self) -> PhaseState:
        """A state that goes on by itself, for a fork or another candidate."""
        other = PhaseState.__new__(PhaseState)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other._scanner = self._scanner.copy()
        return other

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PhaseState):
            return NotImplemented
        names = [name for name in self.__slots__ if name != "_scanner"]
        if any(getattr(self, name) != getattr(other, name) for name in names):
            return False
        return self._scanner.key() == other._scanner.key()

    __hash__ = None  # type: ignore[assignment]

    @property
    def spent(self) -> int:
        """Thought tokens of this turn that count for the budget; forced ones do not."""
        if self.phase is Phase.ANSWER:
            return self._spent
        return self._spent + sum(token.drawn and not token.counted for token in self._scanner.held)

    @property
    def remaining(self) -> int | None:
        """Thought tokens that are left; None: any number."""
        return None if self._budget == _UNLIMITED else max(0, self._budget - self.spent)

    @property
    def stops_are_dormant(self) -> bool:
        """Whether the request's stop strings and stop tokens mean nothing now; ends of the model still do."""
        return self.phase is Phase.THOUGHT

    @property
    def may_end(self) -> bool:
        """Whether the sequence may end by a token that is drawn next: not before the thought has its minimum."""
        return self.phase is Phase.ANSWER or self.spent >= self.settings.minimum

    @property
    def forbidden(self) -> tuple[int, ...]:
        """Ids that must not be drawn next, since they would close the thought before it has its minimum."""
        return () if self.may_end else self._scanner.closers()

    @property
    def is_constrained(self) -> bool:
        """Whether structured output governs the next token: from the first token of the answer that is drawn."""
        return self.phase is Phase.ANSWER and not self.expected

    @property
    def openers(self) -> tuple[int, ...]:
        """Ids that may be drawn beside what structured output allows, since they open the turn's first thought."""
        is_first = self._blank and not (self.had_thought or self.answer_tokens or self._scanner.held)
        if not (self.is_constrained and is_first) or self.remaining == 0:
            return ()
        return tuple(m.token_ids[0] for m in self.settings.markers.opening if len(m.token_ids) == 1)

    @property
    def is_mid_character(self) -> bool:
        """Whether a thought's last character is incomplete, so that nothing should be forced now."""
        return self._missing > 0

    def closing(self) -> tuple[int, ...]:
        """The ids that close the thought from here: the message, or what is missing of it or of the marker."""
        settings, held = self.settings, self._scanner.held
        if self._overlap and self._overlap >= len(held):
            return settings.closing[self._overlap :]
        rest = self._scanner.rest()
        return rest + settings.after if rest else settings.closing

    def observe(self, token_id: int) -> Decision:
        """Take in the next token, drawn or forced."""
        scanner, phase = self._scanner, self.phase
        if not (self._blank or self.expected or scanner.held or token_id in scanner.watch.starters):
            routed = self._observe_plain(token_id)
        else:
            routed = self._observe_any(token_id)
        if phase is Phase.ANSWER or self.phase is Phase.ANSWER:
            return Decision(self.phase, self._close_if_spent(), routed)
        self._overlap = self.settings.overlap(self._overlap, token_id)
        data = self.settings.markers.partial.get(token_id)
        self._missing = 0 if data is None else _missing_bytes(self._missing, data)
        return Decision(Phase.THOUGHT, self._close_if_spent(), routed)

    def _observe_plain(self, token_id: int) -> tuple[Routed, ...]:
        """One more token of text that was drawn: what nearly all tokens are, so it is quick."""
        position, channel = self._position, Channel.ANSWER
        self._position = position + 1
        if self.phase is Phase.THOUGHT:
            channel = Channel.REASONING
            self._spent += 1
            self.reasoning_tokens += position >= 0
        else:
            self.answer_tokens += position >= 0
        return (Routed(position, token_id, channel),) if position >= 0 else ()

    def _observe_any(self, token_id: int) -> tuple[Routed, ...]:
        held = HeldToken(self._position, token_id, 0, not self._follows(token_id), False)
        self._position += 1
        routed: list[Routed] = []
        for event in self._scanner.feed(held):
            if isinstance(event, TextPart):
                self._take_text(event, routed)
            else:
                self._take_marker(event, routed)
        return tuple(routed)

    def observe_all(self, token_ids: Iterable[int]) -> list[Routed]:
        """Take in several tokens, such as those that were forced; whatever they force in turn is in ``expected``."""
        return [part for token_id in token_ids for part in self.observe(token_id).routed]

    def finish(self) -> list[Routed]:
        """The tokens whose channel was not known: no more will come, so they are text."""
        routed: list[Routed] = []
        for part in self._scanner.finish():
            self._take_text(part, routed)
        return routed

    def _follows(self, token_id: int) -> bool:
        """Whether the token is the one that had to come."""
        if not self.expected:
            return False
        if self.expected[0] != token_id:
            self.expected = ()
            return False
        self.expected = self.expected[1:]
        self.forced_tokens += 1
        return True

    def _take_text(self, part: TextPart, routed: list[Routed]) -> None:
        is_thought = self.phase is Phase.THOUGHT
        if part.counts and is_thought and part.drawn:
            self._spent += 1
        self._route(part, Channel.REASONING if is_thought else Channel.ANSWER, routed)
        if self._blank and not self._is_blank(part):
            self._blank = False
            self._set_rules()

    def _take_marker(self, found: MarkerFound, routed: list[Routed]) -> None:
        for part in found.parts:
            self._route(part, Channel.MARKER, routed)
        if not found.closes:
            # A thought that is opened twice is one thought.
            self._enter_thought()
        elif self.phase is Phase.THOUGHT:
            self.phase, self._blank, self._debt = Phase.ANSWER, True, not found.drawn
        else:
            # It closes a thought that the prompt does not show, or closes one again.
            self.had_thought, self._debt = True, False
        self._set_rules()

    def _enter_thought(self) -> None:
        self.phase, self.had_thought = Phase.THOUGHT, True
        self._blank, self._debt = True, False
        self._missing = self._overlap = 0
        self._set_rules()

    def _set_rules(self) -> None:
        """Which markers count now; any other is text."""
        if_blank = MarkerRule.IF_BLANK if self._blank else MarkerRule.NEVER
        if self.phase is Phase.THOUGHT:
            self._scanner.set_rules(if_blank, MarkerRule.ALWAYS)
        elif self.settings.markers_anywhere:
            self._scanner.set_rules(MarkerRule.ALWAYS, MarkerRule.ALWAYS)
        else:
            self._scanner.set_rules(if_blank, MarkerRule.ALWAYS if self._debt else if_blank)

    def _close_if_spent(self) -> tuple[int, ...]:
        """What must come now that did not have to before: the closing message, once the budget is spent."""
        if self.phase is Phase.ANSWER or self.expected:
            return ()
        over = (self.spent if self._scanner.held else self._spent) - self._budget
        if over < 0 or (self._missing and over < _LONGEST_REST):
            return ()
        self.expected = self.closing()
        return self.expected

    def _is_blank(self, part: TextPart) -> bool:
        if part.is_whole:
            return self.settings.markers.is_blank(part.token_id)
        return self.settings.markers.is_blank(part.token_id, part.start, part.end)

    def _route(self, part: TextPart, channel: Channel, routed: list[Routed]) -> None:
        """Count a part and say where it belongs, unless it is the prompt's."""
        if part.position < 0:
            return
        if part.counts and channel is Channel.REASONING:
            self.reasoning_tokens += 1
        elif part.counts and channel is Channel.ANSWER:
            self.answer_tokens += 1
        elif part.counts:
            self.marker_tokens += 1
        text = None if part.is_whole else self.settings.markers.pieces[part.token_id][part.start : part.end]
        routed.append(Routed(part.position, part.token_id, channel, text, part.counts))


def _missing_bytes(missing: int, data: bytes) -> int:
    """Bytes that a character lacks after ``data``, if it lacked ``missing`` before."""
    for byte in data:
        if 0x80 <= byte < 0xC0:
            missing = max(0, missing - 1)
        else:
            missing = 0 if byte < 0xC0 else 1 + (byte >= 0xE0) + (byte >= 0xF0)
    return missing
