"""One sequence: its tokens, and how many of them are computed in which blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from ift_serve.engine.adapters.version import AdapterVersion
from ift_serve.engine.cache.prefix_hash import extend_digests
from ift_serve.engine.protocol.generate import TokenStatistics
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.constraint import Constraint
from ift_serve.engine.sequences.judged_tokens import JudgedTokens
from ift_serve.engine.sequences.prompt import Prompt
from ift_serve.engine.sequences.step import SampledToken, SamplingRow, ScoredTokens, SequenceStep, TokenMask
from ift_serve.engine.sequences.token_masks import Both
from ift_serve.sharing.accounts import Account

_RESPONSE = b"\x03"
_NO_TOKEN = -1
"""Stands behind the last token of a sequence that is judged: what would follow is not asked."""


class Owner(Protocol):
    """What scheduling knows of the request that owns a sequence: its precedence, whose it is, what it has.

    ``number`` counts requests in order of arrival; ``rank`` orders them totally and never changes. ``slot``: of its
    adapter while it has one. ``admitted``: when it first got a row, seconds; 0: not yet. ``length_limit``: tokens that
    a sequence of it may have; ``may_draft``: whether a row with its adapter is the same in any company.
    """

    number: int
    priority: int
    rank: tuple[int, int]
    account: Account
    prompt: Prompt
    adapter: AdapterVersion | None
    slot: int
    admitted: float
    cached_tokens: int
    preemptions: int
    live: list[Sequence]
    length_limit: int
    may_draft: bool

    @property
    def split_pending(self) -> bool:
        """Whether the root stands for several sequences that part at the end of the prompt."""

    @property
    def width(self) -> int:
        """Sequences after the split."""

    def split(self, root: Sequence, numbers: list[int]) -> list[Sequence]:
        """Turn the root, computed up to its last token, into the first sequence; return the others."""


class Sequence:
    """Tokens of one candidate or continuation.

    ``tokens[:computed]`` have keys and values in the blocks of ``table``. ``deferred`` is 1 where the last
    token is not to be computed: a prompt that several sequences will share, or a text that is only scored.
    ``row_start`` is how many tokens it had when it last got a row (``has_row``).
    ``forbidden``: what its strategy lets it draw, beside the form of the answer; None: everything.
    ``pending`` is set while a step computes it, until its result is taken in. ``is_probe``: its last tokens are scored
    for a strategy, and it draws none. ``is_paused``: it has drawn, and waits for its siblings to have. ``judged``: what
    the adherence head says of its scored positions; None where it is not asked.
    ``ahead``: the next draws, where a step that computed drafted tokens knows them already; only while it has a row.
    Keys and values of the tokens before each are in its blocks. What changes tokens or the way to draw drops them.
    ``drafts``: what the planner of drafts keeps of it.
    """

    __slots__ = (
        "ahead",
        "branches",
        "candidate",
        "capacity",
        "computed",
        "constraint",
        "decode_step",
        "deferred",
        "digests",
        "drafts",
        "ended",
        "forbidden",
        "has_row",
        "is_paused",
        "is_probe",
        "judged",
        "key",
        "last_token",
        "may_share_tail",
        "number",
        "ordinal",
        "overridden",
        "owner",
        "pending",
        "prompt",
        "prompt_length",
        "published",
        "record",
        "row",
        "row_start",
        "score_start",
        "scored_greedy",
        "scored_log_probs",
        "sent",
        "statistics",
        "table",
        "tokens",
        "top_log_probs",
    )

    def __init__(self, owner: Owner, number: int, ordinal: int, tokens: list[int]) -> None:
        self.owner = owner
        prompt = self.prompt = owner.prompt
        self.number = number
        self.ordinal = ordinal
        self.key = (*owner.rank, ordinal)
        self.tokens = tokens
        self.prompt_length = prompt.length
        self.deferred = 0
        self.has_row = False
        self.row_start = len(tokens)
        self.computed = 0
        self.table: list[int] = []
        self.capacity = 0
        self.may_share_tail = False
        self.digests: list[bytes] = []
        self.published = 0
        self.row: SamplingRow | None = None
        self.last_token = [0]
        self.decode_step = SequenceStep(number, self.last_token, 0, self.table)
        self.decode_step.adapter, self.decode_step.prompt = owner.slot, prompt.adapted
        if prompt.segment_ids:
            self.decode_step.segment_ids = _RESPONSE
        self.constraint: Constraint | None = None
        self.forbidden: TokenMask | None = None
        self.ended: FinishReason | None = None
        self.overridden = False
        self.pending = False
        self.is_probe = False
        self.is_paused = False
        self.branches = 0
        self.candidate = ordinal
        self.sent = 0
        self.record: list[SampledToken] = []
        self.statistics: list[TokenStatistics] = []
        self.top_log_probs: list[list[tuple[int, float]]] = []
        self.score_start = -1
        self.scored_log_probs: list[float] = []
        self.scored_greedy: list[bool] = []
        self.judged: JudgedTokens | None = None
        self.ahead: list[SampledToken] = []
        self.drafts: object = None

    @property
    def goal(self) -> int:
        """Tokens to have computed before the next draw, split or score."""
        return len(self.tokens) - self.deferred

    @property
    def first_required(self) -> int:
        """The first position to compute even where the cache knows it, because its output is needed."""
        if self.score_start >= 0:
            return self.score_start + len(self.scored_log_probs)
        return len(self.tokens) - 1

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def generated_count(self) -> int:
        return len(self.tokens) - self.prompt_length

    def append(self, token: SampledToken, record: bool) -> None:
        """One generated token, with its statistics to send."""
        self.tokens.append(token.token_id)
        self.statistics.append(token.statistics)
        self.top_log_probs.append(token.top_log_probs)
        if record:
            self.record.append(token)
        if self.constraint is not None:
            self.constraint.take(token.token_id)

    def take_back_last(self, recorded: bool) -> None:
        """Undo the last ``append``, whose token has not been sent or computed."""
        self.tokens.pop()
        self.statistics.pop()
        self.top_log_probs.pop()
        if recorded:
            self.record.pop()
        if self.constraint is not None:
            self.constraint.take_back(1)

    def constrain(self) -> None:
        """Have the next draw held to the form, as it is after the last token, and to what its strategy forbids."""
        if self.constraint is not None and self.row is not None:
            self.row.mask = _both(self.constraint.mask(), self.forbidden)

    def forbid(self, mask: TokenMask | None) -> None:
        """Hold its draws to ``mask`` too, until the next call; None: to nothing beside the form."""
        self.ahead.clear()
        self.forbidden = mask
        if self.row is not None:
            self.row.mask = mask
        self.constrain()

    def free(self) -> None:
        """Hold it to no form any more."""
        self.constraint = None
        if self.row is not None:
            self.row.mask = self.forbidden

    def take_scores(self, scored: ScoredTokens) -> None:
        """Scores of the next targets."""
        self.scored_log_probs += scored.log_probs
        self.scored_greedy += scored.greedy
        if self.judged is not None:
            self.judged.add(scored.judged)

    def judge(self, segments: bytes, begin: int) -> None:
        """Have the response from position ``begin`` on judged, as far as the tokens go; see ``JudgedTokens``.

        Every position is followed by a target, the last by none that there is.
        """
        self.judged = JudgedTokens(segments, begin)
        self.tokens.append(_NO_TOKEN)
        self.deferred = 1
        self.score_start = self.judged.first

    def set_row(self, row: SamplingRow) -> None:
        """Sample with ``row`` from now on."""
        self.row = row
        self.decode_step.sampling = row

    @property
    def can_be_drafted(self) -> bool:
        """Whether the draw behind a drafted token is known before that token counts."""
        return self.row is not None and self.row.params.target_probability is None

    def drafted_step(self, drafted: list[int]) -> SequenceStep:
        """Its next decode step with drafted tokens behind its last one, and a draw behind each.

        Drafted tokens that the form does not allow do no harm: nothing can be drawn behind them.
        """
        row, plain, count = self.row, self.decode_step, len(drafted)
        assert row is not None
        masks = self._masks_behind(drafted)
        return replace(
            plain,
            token_ids=[*plain.token_ids, *drafted],
            segment_ids=plain.segment_ids * (1 + count),
            drafts=tuple(row.after(tuple(drafted[: 1 + place]), masks[place]) for place in range(count)),
        )

    def _masks_behind(self, drafted: list[int]) -> list[TokenMask | None]:
        if self.constraint is None:
            return [self.forbidden] * len(drafted)
        place, masks = self.constraint.copy(), list[TokenMask | None]()
        for token_id in drafted:
            place.take(token_id)
            masks.append(_both(place.mask(), self.forbidden))
        return masks

    def extend_digests(self, blocks: int, block_size: int) -> list[bytes]:
        """Hashes of the first ``blocks`` blocks, all full."""
        if len(self.digests) < blocks:
            prompt = self.prompt
            extend_digests(self.digests, prompt.root, self.tokens, prompt.hashed_segments, block_size, blocks)
        return self.digests if len(self.digests) == blocks else self.digests[:blocks]

    def segments(self, start: int, end: int) -> bytes:
        """Segment bytes of positions ``start .. end-1``; generated ones are response."""
        segments = self.prompt.segment_ids
        if not segments:
            return b""
        known = segments[start:end]
        return known + _RESPONSE * (end - start - len(known))

    def targets(self, start: int, end: int) -> list[int] | None:
        """The next tokens of those positions in ``start .. end-1`` that are scored and were not before."""
        if self.score_start < 0:
            return None
        first = max(start, self.first_required)
        return self.tokens[first + 1 : end + 1] or None

    def forget_computed(self) -> None:
        """Nothing is computed any more; the caller has released the table."""
        self.computed = 0
        self.capacity = 0
        self.published = 0
        self.may_share_tail = False


def _both(mask: TokenMask | None, forbidden: TokenMask | None) -> TokenMask | None:
    if mask is None or forbidden is None:
        return forbidden if mask is None else mask
    return Both(mask, forbidden)
