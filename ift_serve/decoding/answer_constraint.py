"""A form that governs the answer alone: what is thought before it has none, but must not end the sequence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ift_serve.engine.sequences.constraint import Constraint
from ift_serve.engine.sequences.step import TokenMask
from ift_serve.text.phases import Phase, PhaseState


class _AlsoAllowed:
    """A mask with a few tokens more."""

    def __init__(self, mask: TokenMask, token_ids: tuple[int, ...]) -> None:
        self._mask = mask
        self._token_ids = token_ids

    def words(self) -> NDArray[np.int32]:
        bits = self._mask.words().view(np.uint32).copy()
        for token_id in self._token_ids:
            bits[token_id // 32] |= np.uint32(1 << token_id % 32)
        return bits.view(np.int32)


class AnswerConstraint:
    """``form`` from the first token of the answer on, as the phase machine tells it.

    ``start``: before any token. ``thought``: what may be drawn inside a thought; an end there would leave no answer.
    ``may_open``: whether the model opens thoughts itself. One that does not gives the marker next to no probability,
    but that may be more than what it gives to all that the form allows.
    """

    def __init__(self, form: Constraint, start: PhaseState, thought: TokenMask, *, may_open: bool = True) -> None:
        self._form = form
        self._start = start
        self._thought = thought
        self._may_open = may_open
        self._state = start.copy()
        self._tokens: list[tuple[int, bool]] = []
        """Each token, and whether it is the form's."""

    @property
    def is_ready(self) -> bool:
        return self._form.is_ready

    def copy(self) -> AnswerConstraint:
        other = AnswerConstraint(self._form.copy(), self._start, self._thought, may_open=self._may_open)
        other._state = self._state.copy()
        other._tokens = list(self._tokens)
        return other

    def take(self, token_id: int) -> None:
        was_answer = self._state.is_constrained
        self._state.observe(token_id)
        is_forms = was_answer and self._state.phase is Phase.ANSWER
        self._tokens.append((token_id, is_forms))
        if is_forms:
            self._form.take(token_id)

    def take_back(self, count: int) -> None:
        taken = sum(is_forms for _, is_forms in self._tokens[len(self._tokens) - count :])
        del self._tokens[len(self._tokens) - count :]
        self._state = self._start.copy()
        self._state.observe_all(token_id for token_id, _ in self._tokens)
        if taken:
            self._form.take_back(taken)

    def mask(self) -> TokenMask | None:
        if self._state.phase is Phase.THOUGHT:
            return self._thought
        if not self._state.is_constrained:
            return None
        mask = self._form.mask()
        openers = self._state.openers if self._may_open else ()
        return mask if mask is None or not openers else _AlsoAllowed(mask, openers)

    def error(self) -> str:
        return self._form.error()
