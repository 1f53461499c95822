"""A request inside the engine: its sequences, its limits and its times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import msgspec

from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.cache.prefix_hash import root_digest
from ift_serve.engine.core.strategy import HIDDEN, Strategy
from ift_serve.engine.core.timeline_recorder import TimelineRecorder
from ift_serve.engine.protocol.generate import Conclusion, GenerateRequest
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.engine.protocol.score import ContinuationScore, ScoreRequest
from ift_serve.engine.scheduling.fair_share import rank
from ift_serve.engine.sequences.constraint import Constraint
from ift_serve.engine.sequences.judged_tokens import first_required, probability
from ift_serve.engine.sequences.prompt import Prompt
from ift_serve.engine.sequences.seeds import candidate_seed, prompt_seed
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import AdaptedPrompt, SampledToken, SamplingRow, ScoredTokens, TokenMask
from ift_serve.engine.sequences.token_masks import AllBut
from ift_serve.sharing.accounts import Account


class Request(ABC):
    """What generating and scoring have in common. The scheduler knows only this.

    ``number`` counts requests in order of arrival. ``live`` holds the sequences that have not ended.
    """

    def __init__(
        self,
        message: GenerateRequest | ScoreRequest,
        number: int,
        account: Account,
        now: float,
        adapter: AdapterVersion | None = None,
    ) -> None:
        self.request_id = message.request_id
        self.number = number
        self.priority = message.priority
        self.rank = rank(number, message.priority)
        self.account = account
        self.deadline = message.deadline
        self.adapter = adapter
        self.slot = 0
        self.prompt = _prompt(message, number, adapter)
        self.arrival = message.arrival or now
        self.admitted = 0.0
        self.first_token = 0.0
        self.cached_tokens = 0
        self.preemptions = 0
        self.drafted_tokens = self.accepted_tokens = 0
        self.length_limit = 0
        self.may_draft = adapter is None or adapter.metadata.independent_rows
        self.done = False
        self.suppress_output = False
        self.live: list[Sequence] = []
        self.unsent: list[Sequence] = []
        self.has_new_tokens = False
        self.timeline: TimelineRecorder | None = None
        """When its sequences began and ended, where it is traced."""
        self._next_ordinal = 0

    def new_sequence(self, number: int, tokens: list[int]) -> Sequence:
        """One more sequence, live, without blocks."""
        sequence = Sequence(self, number, self._next_ordinal, tokens)
        self._next_ordinal += 1
        self.live.append(sequence)
        if self.timeline is not None:
            self.timeline.begin(sequence)
        return sequence

    def usage(self) -> RequestUsage:
        """Counts and times so far."""
        return RequestUsage(
            prompt_tokens=self.prompt.length,
            cached_tokens=self.cached_tokens,
            queue_seconds=max(0.0, self.admitted - self.arrival) if self.admitted else 0.0,
            first_token_seconds=max(0.0, self.first_token - self.arrival) if self.first_token else 0.0,
            preemptions=self.preemptions,
            adapter="" if self.adapter is None else self.adapter.key,
        )

    @abstractmethod
    def start(self, number: int) -> Sequence:
        """The root sequence, with the sequence number."""

    @property
    @abstractmethod
    def split_pending(self) -> bool:
        """Whether the root stands for several sequences that part at the end of the prompt."""

    @abstractmethod
    def split(self, root: Sequence, numbers: list[int]) -> list[Sequence]:
        """Turn the root, computed up to its last token, into the first sequence; return the others."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Sequences after the split."""


def _prompt(message: GenerateRequest | ScoreRequest, number: int, adapter: AdapterVersion | None) -> Prompt:
    token_ids = message.token_ids
    segment_ids = message.segment_ids if any(message.segment_ids) else b""
    if adapter is None:
        return Prompt(token_ids, segment_ids, root_digest(""))
    uses_segments = adapter.metadata.uses_segments
    if uses_segments and not segment_ids:
        # A prompt without segments is template; what follows is response, and adapters tell them apart.
        segment_ids = bytes(len(token_ids))
    return Prompt(
        token_ids,
        segment_ids,
        adapter.cache_root(token_ids, segment_ids),
        segment_ids if uses_segments else b"",
        AdaptedPrompt(number, token_ids, segment_ids),
    )


class Generation(Request):
    """A request that a strategy drives."""

    def __init__(
        self,
        message: GenerateRequest,
        number: int,
        account: Account,
        now: float,
        strategy: Strategy,
        adapter: AdapterVersion | None = None,
    ) -> None:
        super().__init__(message, number, account, now, adapter)
        self.sampling = message.sampling
        self.whole = message.whole
        self.strategy = strategy
        self.end_ids: frozenset[int] = frozenset()
        self.eos_ids: frozenset[int] = frozenset()
        self.counted_first = False
        self.finish_reason: FinishReason | None = None
        self.limits = message.limits
        self.drawn: dict[Sequence, SampledToken | ScoredTokens] = {}
        """What sequences have drawn, or been given as scores, in the round that is not told of yet."""
        self.candidates: set[int] = set(range(strategy.width)) if strategy.streams else set()
        self.drawn_tokens = self.forced_tokens = self.forks = 0
        self.told_ends: set[int] = set()
        """Candidates whose end was sent."""
        self.concluded = False
        self.conclusion: Conclusion | None = strategy.conclusion
        self.output_field = "" if message.output is None else f"output.{message.output.kind}"
        self.constraint: Constraint | None = None
        """What every sequence begins with, where the answer has a form."""
        wanted = max(message.sampling.top_logprobs, strategy.alternatives)
        self._params = msgspec.structs.replace(message.sampling, top_logprobs=wanted)
        self._split = strategy.width == 1
        self.told = Strategy() if strategy.passive else strategy
        """What is called of the sequences."""
        self.is_passive = strategy.passive
        """Whether its sequences go on without waiting for one another."""
        self._seed = prompt_seed(message.sampling.seed, message.token_ids)
        self._vocabulary = 0
        self._masks: dict[frozenset[int], AllBut] = {}

    def set_limits(self, eos_ids: list[int], context_length: int, vocabulary: int) -> None:
        """Which tokens end a sequence, and how many tokens it may have. ``vocabulary``: tokens that there are."""
        sampling = self.sampling
        self.eos_ids = frozenset() if sampling.ignore_eos else frozenset(eos_ids)
        self.end_ids = self.eos_ids.union(sampling.stop_ids)
        longest = self.prompt.length + sampling.max_new_tokens + self.strategy.extra_tokens
        self.length_limit = min(longest, context_length)
        self._vocabulary = vocabulary
        most = self.strategy.width * (self.length_limit - self.prompt.length)
        # Which of several sequences get the last tokens must not depend on the load: it is told in rounds.
        self.is_passive = self.strategy.passive and most <= self.limits.total_tokens

    def all_but(self, token_ids: Iterable[int]) -> TokenMask:
        """A mask of all tokens but these and those that end a sequence; rows that have the same share it."""
        refused = self.end_ids.union(token_ids)
        mask = self._masks.get(refused)
        if mask is None:
            known = (token_id for token_id in refused if token_id < self._vocabulary)
            mask = self._masks[refused] = AllBut(known, self._vocabulary)
        return mask

    @property
    def spent(self) -> int:
        """Tokens drawn and forced so far, in all sequences."""
        return self.drawn_tokens + self.forced_tokens

    @property
    def round_complete(self) -> bool:
        """Whether every live sequence has drawn, so that the strategy can be told."""
        return len(self.drawn) == len(self.live)

    def usage(self) -> RequestUsage:
        """Counts and times so far, hidden sequences' tokens included."""
        return msgspec.structs.replace(
            super().usage(),
            drawn_tokens=self.drawn_tokens,
            forced_tokens=self.forced_tokens,
            sequences=self.strategy.width + self.forks,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
        )

    def end_reason(self, token_id: int, length: int) -> FinishReason | None:
        """Why a sequence of ``length`` tokens ends with this token, if it does."""
        if token_id in self.end_ids:
            return FinishReason.EOS if token_id in self.eos_ids else FinishReason.STOP
        return FinishReason.LENGTH if length >= self.length_limit else None

    def start(self, number: int) -> Sequence:
        """The root sequence."""
        root = self.new_sequence(number, list(self.prompt.token_ids))
        root.constraint = self.constraint
        self._begin(root)
        root.deferred = 0 if self._split else 1
        return root

    @property
    def _first_temperature(self) -> float:
        chosen = self.strategy.first_temperature
        return self.sampling.temperature if chosen is None else chosen

    def _prepare(self, sequence: Sequence, seed: int, temperature: float) -> None:
        row = SamplingRow(self._params, seed, 0, temperature, sequence.tokens, self.prompt.length)
        if self.strategy.confidences and self.adapter is not None:
            row.calibration = self.adapter.metadata.calibration
        sequence.set_row(row)
        if not self.strategy.streams:
            sequence.candidate = HIDDEN
        sequence.constrain()

    def _begin(self, sequence: Sequence) -> None:
        """Have one that begins at the prompt draw as its ordinal says, and what its strategy lets it draw first."""
        self._prepare(sequence, candidate_seed(self._seed, sequence.ordinal), self._first_temperature)
        if self.strategy.first_forbidden is not None:
            sequence.forbid(self.all_but(self.strategy.first_forbidden))

    def branch(self, parent: Sequence, number: int, kept: int) -> Sequence:
        """A sequence with ``kept`` of the parent's generated tokens, their record and its temperature, without blocks.

        Its seed depends on the parent's and on how many branches that had. Where it keeps nothing it is one more first
        sequence: its seed depends on its ordinal, so it draws the same however many of them began together.
        """
        child = self._fork(parent, number) if kept else self._copy(parent, number)
        del child.tokens[self.prompt.length + kept :]
        if child.constraint is not None and kept < parent.generated_count:
            child.constraint.take_back(parent.generated_count - kept)
        row = parent.row
        assert row is not None
        if kept:
            parent.branches += 1
            self._prepare(child, candidate_seed(row.seed, parent.branches), row.temperature)
        else:
            self._begin(child)
            assert child.row is not None
            child.row.temperature = row.temperature
        if child.row is not None and row.average is not None:
            child.row.average = row.average.fork(child.tokens)
        child.record = parent.record[:kept]
        child.statistics = [entry.statistics for entry in child.record]
        child.top_log_probs = [entry.top_log_probs for entry in child.record]
        return child

    def probe(self, parent: Sequence, number: int, token_ids: list[int]) -> Sequence:
        """A hidden sequence with the parent's tokens, after which these are scored."""
        probe = self._fork(parent, number)
        probe.candidate = HIDDEN
        probe.is_probe = True
        probe.constraint = None
        probe.tokens += token_ids
        probe.deferred = 1
        probe.score_start = len(parent.tokens) - 1
        return probe

    def judge(self, parent: Sequence, number: int, begin: int) -> Sequence:
        """A hidden sequence with the parent's tokens, those from position ``begin`` on for the adherence head."""
        judge = self._fork(parent, number)
        judge.candidate = HIDDEN
        judge.is_probe = True
        judge.constraint = None
        judge.judge(self.prompt.segment_ids, begin)
        return judge

    @property
    def split_pending(self) -> bool:
        return not self._split

    @property
    def width(self) -> int:
        return self.strategy.width

    def split(self, root: Sequence, numbers: list[int]) -> list[Sequence]:
        self._split = True
        root.deferred = 0
        children = [self._copy(root, number) for number in numbers]
        for child in children:
            self._begin(child)
        return children

    def _fork(self, parent: Sequence, number: int) -> Sequence:
        child = self._copy(parent, number)
        if self.timeline is not None:
            self.timeline.descend(child, parent)
        return child

    def _copy(self, parent: Sequence, number: int) -> Sequence:
        child = self.new_sequence(number, list(parent.tokens))
        child.digests = list(parent.digests)
        if parent.constraint is not None:
            child.constraint = parent.constraint.copy()
        return child


class Scoring(Request):
    """A request for the log-probabilities of continuations. Every continuation is one sequence."""

    def __init__(
        self,
        message: ScoreRequest,
        number: int,
        account: Account,
        now: float,
        adapter: AdapterVersion | None = None,
    ) -> None:
        super().__init__(message, number, account, now, adapter)
        self._continuations = [(i, tokens) for i, tokens in enumerate(message.continuations) if tokens]
        empty = ContinuationScore(0.0, True, [])
        self.scores: list[ContinuationScore] = [empty] * len(message.continuations)
        self._split = False
        self._judges = message.adherence

    def start(self, number: int) -> Sequence:
        """The root sequence: the context, of which the last token stays for the continuations.

        Where answers in it are judged too, what is shared ends before them.
        """
        prompt = self.prompt
        shared = prompt.length if not self._judges else first_required(prompt.segment_ids, prompt.length) + 1
        root = self.new_sequence(number, list(prompt.token_ids[:shared]))
        root.deferred = 1
        if self.width == 1:
            self.split(root, [])
        return root

    @property
    def split_pending(self) -> bool:
        return not self._split

    @property
    def width(self) -> int:
        return len(self._continuations)

    def split(self, root: Sequence, numbers: list[int]) -> list[Sequence]:
        self._split = True
        prompt = self.prompt.token_ids
        children = [self.new_sequence(number, []) for number in numbers]
        for sequence, (index, tokens) in zip([root, *children], self._continuations, strict=True):
            sequence.candidate = index
            sequence.deferred = 1
            # In place: it is the list that a row may have.
            sequence.tokens[:] = [*prompt, *tokens]
            sequence.score_start = self.prompt.length - 1
            if self._judges:
                sequence.judge(self.prompt.segment_ids, self.prompt.length)
            if sequence is not root:
                sequence.digests = list(root.digests)
        return children

    def finish_sequence(self, sequence: Sequence) -> None:
        """Keep the score of a sequence whose targets are all scored."""
        log_probs, greedy, adherence = sequence.scored_log_probs, sequence.scored_greedy, None
        if sequence.judged is not None:
            # The context may have been computed again for answers in it, and the last position has no target.
            own = slice(-len(sequence.tokens) + self.prompt.length, -1)
            log_probs, greedy = log_probs[own], greedy[own]
            adherence = probability(sequence.judged.logit())
        self.scores[sequence.candidate] = ContinuationScore(sum(log_probs), all(greedy), log_probs, adherence)
