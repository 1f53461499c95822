"""Structured output: answers that a JSON schema, a regular expression or a grammar describes, by llguidance.

Masks are made in threads beside the model's step: what a token allows next is being computed while the model computes
that token's successor's logits, and the sampler asks for it only then. Requests take turns in them, and so do callers
whose forms are read, so a form that is slow costs others one of its masks at a time at most, and its caller the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ift_serve.decoding.answer_constraint import AnswerConstraint
from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.form_trial import FormTrials
from ift_serve.decoding.forms import FormatError, grammar_of
from ift_serve.decoding.lanes import Lane, Lanes
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.output import OutputFormat
from ift_serve.engine.protocol.reasoning import Trace
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.sequences.constraint import Constraint
from ift_serve.engine.sequences.step import TokenMask
from ift_serve.engine.sequences.token_masks import AllBut

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_WORD = 32
_THREADS = 2
"""That read forms, and as many that make masks."""
_LONGEST_ERROR = 300


class StructuredOutput:
    """Makes the constraints of one model's requests. ``vocabulary``: tokens that the model has logits for."""

    def __init__(self, context: StrategyContext, vocabulary: int) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._compilers = Lanes(_THREADS, "grammar")
        self._trials = FormTrials(_THREADS)
        self._masks = Lanes(_THREADS, "masks")
        self._lanes: dict[str, Lane] = {}
        """Of the callers whose forms are being read."""
        self._tokenizer: LLTokenizer | None = None
        self._ends: tuple[int, ...] = ()
        self._lock = Lock()

    def __call__(self, request: GenerateRequest, end_ids: Sequence[int]) -> Constraint | None:
        """See ``ConstraintFactory``."""
        output = request.output
        if output is None:
            return None
        renderer = self._context.renderer
        if renderer is None:
            raise _refused(output, "the model has no tokenizer that tells the texts of its tokens")
        if not end_ids:
            raise _refused(output, "the model names no token that ends an answer")
        ends = tuple(sorted(set(end_ids)))
        place = self._lane(request.client).submit(self._place, renderer.tokenizer, output, ends)
        form = GrammarConstraint(self._masks.open().submit, place, self._vocabulary)
        trace = request.reasoning if isinstance(request.reasoning, Trace) else getattr(request.reasoning, "trace", None)
        start = SequenceRules.of(request, self._context, trace, "reasoning").start
        if start is None:
            return form
        # A marker may be a token that ends an answer too.
        markers = {token_id for marker in start.settings.markers.closing for token_id in marker.token_ids}
        phases = self._context.phases
        return AnswerConstraint(
            form,
            start,
            AllBut(set(ends) - markers, self._vocabulary),
            may_open=trace is not None or phases is None or not phases.is_opened_by_prompt,
        )

    def _lane(self, client: str) -> Lane:
        """Where the forms of a caller are read, one after the other."""
        self._lanes = {other: lane for other, lane in self._lanes.items() if not lane.is_idle}
        return self._lanes.setdefault(client, self._compilers.open())

    def _tokens(self, tokenizer: Any, ends: tuple[int, ...]) -> LLTokenizer:
        import llguidance.hf

        with self._lock:
            if self._tokenizer is None or self._ends != ends:
                known = len(tokenizer)
                self._tokenizer = llguidance.hf.from_tokenizer(
                    tokenizer, n_vocab=max(self._vocabulary, known), eos_token=list(ends)
                )
                self._ends = ends
            return self._tokenizer

    def _place(self, tokenizer: Any, output: OutputFormat, ends: tuple[int, ...]) -> _Place:
        """In a compiler's thread: a form can take long, and others' masks do not wait for it."""
        self._trials.check(output)
        grammar = grammar_of(output)
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokens(tokenizer, ends), grammar)
        if matcher.is_error():
            raise FormatError(_reason(matcher))
        place = _Place(matcher)
        if not matcher.is_accepting() and place.allows_only(ends, self._vocabulary):
            raise FormatError("no answer has this form")
        return place


def _refused(output: OutputFormat, message: str) -> RefusedError:
    field = f"output.{output.kind}"
    return RefusedError(FailureKind.INVALID, f"{field}: {message}", field)


class _Mask:
    """A mask that is being made."""

    def __init__(self, made: Future[NDArray[np.int32]]) -> None:
        self._made = made

    def words(self) -> NDArray[np.int32]:
        return self._made.result()


class _Place:
    """Where a sequence is in a grammar. Used by one thread at a time.

    A form that nothing can follow is over before the token that ends the answer, which the matcher does not take; so
    what it took is counted here, and only that is taken back from it.
    """

    def __init__(self, matcher: LLMatcher, taken: tuple[bool, ...] = ()) -> None:
        self.matcher = matcher
        self._taken = list(taken)

    def copy(self) -> _Place:
        return _Place(self.matcher.deep_copy(), tuple(self._taken))

    def take(self, token_id: int) -> None:
        is_open = not self.matcher.is_stopped()
        self._taken.append(is_open and self.matcher.consume_token(token_id))

    def take_back(self, count: int) -> None:
        kept = len(self._taken) - count
        taken = sum(self._taken[kept:])
        del self._taken[kept:]
        if taken:
            self.matcher.rollback(taken)

    def allows_only(self, token_ids: Iterable[int], vocabulary: int) -> bool:
        """Whether no token may be drawn next but these."""
        bits = self.mask(vocabulary).view(np.uint32)
        for token_id in token_ids:
            bits[token_id // _WORD] &= ~np.uint32(1 << token_id % _WORD)
        return not bits.any()

    def mask(self, vocabulary: int) -> NDArray[np.int32]:
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        words: NDArray[np.int32] = allocate_token_bitmask(1, -(-vocabulary // _WORD) * _WORD)
        if self.matcher.is_error():
            return np.zeros_like(words[0])
        fill_next_token_bitmask(self.matcher, words)
        row: NDArray[np.int32] = words[0]
        return row


class GrammarConstraint:
    """One sequence's place in a grammar.

    Everything is done in the request's lane, in the order in which it is asked for, so that a copy sees just what came
    before.
    Nothing may be asked before it is ready. Where the grammar turns out not to work, its masks allow no token.
    """

    def __init__(self, submit: Callable[..., Future[Any]], place: Future[_Place], vocabulary: int) -> None:
        self._submit = submit
        self._place = place
        self._vocabulary = vocabulary
        self._mask: _Mask | None = None

    @property
    def is_ready(self) -> bool:
        return self._place.done()

    def copy(self) -> GrammarConstraint:
        return GrammarConstraint(self._submit, self._submit(_copy, self._place), self._vocabulary)

    def take(self, token_id: int) -> None:
        self._submit(_take, self._place, token_id)
        self._mask = None

    def take_back(self, count: int) -> None:
        self._submit(_take_back, self._place, count)
        self._mask = None

    def mask(self) -> TokenMask:
        if self._mask is None:
            self._mask = _Mask(self._submit(_fill, self._place, self._vocabulary))
        return self._mask

    def error(self) -> str:
        try:
            matcher = self._place.result().matcher
        except (FormatError, ValueError) as error:
            return str(error)
        return _reason(matcher) if matcher.is_error() else ""


def _reason(matcher: LLMatcher) -> str:
    """What is wrong, without the matcher's state, which says nothing to a caller."""
    return " ".join(matcher.get_error().split("<state>")[0].split())[:_LONGEST_ERROR]


def _copy(place: Future[_Place]) -> _Place:
    return place.result().copy()


def _take(place: Future[_Place], token_id: int) -> None:
    place.result().take(token_id)


def _take_back(place: Future[_Place], count: int) -> None:
    place.result().take_back(count)


def _fill(place: Future[_Place], vocabulary: int) -> NDArray[np.int32]:
    return place.result().mask(vocabulary)
