"""Input and output of the model runner for one step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ift_serve.engine.protocol.generate import SamplingParams, TokenStatistics
from ift_serve.engine.sequences.adjusted_tokens import AdjustedTokens
from ift_serve.engine.sequences.probability_average import ProbabilityAverage


class ComputeLostError(Exception):
    """What computes is broken for good: no further step can be computed, and the engine must end."""


class TokenMask(Protocol):
    """Which tokens may be drawn, as far as it has been found out yet."""

    def words(self) -> NDArray[np.int32]:
        """``[ceil(V / 32)]`` int32: bit ``v % 32`` of word ``v // 32`` allows v. Blocks until they are computed."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownMask:
    """A ``TokenMask`` that is there."""

    bits: NDArray[np.int32]

    def words(self) -> NDArray[np.int32]:
        return self.bits


@dataclass(slots=True)
class SamplingRow:
    """How to draw the token after the last computed position of one sequence.

    ``history`` is the live list of all its tokens, of which the first ``prompt_length`` are the prompt.
    ``step`` counts the tokens generated so far; with ``seed`` and a token id it keys the random draw. ``mask``: what
    may be drawn; None: everything. ``calibration``: what raw logits are divided by for ``SampledToken.calibrated``;
    None: it is not wanted. ``adjusted`` and ``average`` are the sampler's own: what it keeps from step to step.
    ``drafted``: tokens behind ``history`` that this draw takes for drawn; ``step`` counts them too.
    """

    params: SamplingParams
    seed: int
    step: int
    temperature: float
    history: list[int]
    prompt_length: int
    adjusted: AdjustedTokens | None = None
    average: ProbabilityAverage | None = None
    mask: TokenMask | None = None
    calibration: float | None = None
    drafted: tuple[int, ...] = ()

    def after(self, drafted: tuple[int, ...], mask: TokenMask | None) -> SamplingRow:
        """How to draw behind ``drafted`` tokens, with the ``mask`` that holds there."""
        return replace(self, step=self.step + len(drafted), drafted=drafted, mask=mask)


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedPrompt:
    """What an adapter needs to know of a request beside the tokens of a step: its whole prompt.

    ``number`` tells requests of one engine apart.
    """

    number: int
    token_ids: list[int]
    segment_ids: bytes


@dataclass(slots=True)
class SequenceStep:
    """The tokens of one sequence that one step computes.

    ``start`` tokens are in the cache already, so it is the position of ``token_ids[0]``. ``block_table``
    covers at least ``start + len(token_ids)`` positions. ``segment_ids`` has a byte per token (empty:
    all template). ``score_targets`` are the true next tokens of the last ``len(score_targets)`` positions, of which
    ``judges`` wants the adherence head's view too.
    ``adapter`` is the slot of the sequence's adapter, 0 for the base model, which needs no ``prompt``.
    With ``drafts`` the last ``len(drafts)`` tokens are drafted: ``sampling`` draws in front of them, and each of
    ``drafts`` behind one.
    """

    sequence_id: int
    token_ids: list[int]
    start: int
    block_table: list[int]
    segment_ids: bytes = b""
    sampling: SamplingRow | None = None
    score_targets: list[int] | None = None
    judges: bool = False
    adapter: int = 0
    prompt: AdaptedPrompt | None = None
    drafts: tuple[SamplingRow, ...] = ()

    def accepted(self, first: SampledToken, drafted: list[SampledToken]) -> list[SampledToken]:
        """The draws behind drafted tokens that count: as long as each drafted token is what was drawn in its place.

        first: what ``sampling`` drew; drafted: what ``drafts`` drew.
        """
        found: list[SampledToken] = []
        last = first
        for token_id, draw in zip(self.token_ids[-len(drafted) :], drafted, strict=True):
            if last.token_id != token_id:
                break
            found.append(draw)
            last = draw
        return found


class DrawingRow(Protocol):
    """Of whom the sampler draws a row: a ``SequenceStep``, or a place behind one of its drafted tokens."""

    @property
    def sampling(self) -> SamplingRow | None: ...
    @property
    def adapter(self) -> int: ...
    @property
    def prompt(self) -> AdaptedPrompt | None: ...


@dataclass(frozen=True, slots=True)
class DraftedRow:
    """The ``DrawingRow`` behind a drafted token."""

    sampling: SamplingRow
    adapter: int
    prompt: AdaptedPrompt | None


@dataclass(slots=True)
class StepBatch:
    """One forward pass: whole-block copies (source, destination) first, then every sequence's tokens."""

    sequences: list[SequenceStep]
    block_copies: list[tuple[int, int]]


@dataclass(slots=True)
class SampledToken:
    """A drawn token with its statistics and the most likely alternatives, most likely first.

    ``calibrated``: the statistics with p1, p2, entropy and the mean of the 20 most likely by the adapter's calibration
    temperature; None without one.
    """

    token_id: int
    statistics: TokenStatistics
    top_log_probs: list[tuple[int, float]]
    calibrated: TokenStatistics | None = None

    @property
    def confidence(self) -> TokenStatistics:
        """What strategies judge by how sure the model was."""
        return self.statistics if self.calibrated is None else self.calibrated


@dataclass(slots=True)
class ScoredTokens:
    """For each score target: its log-probability, and whether it is the argmax.

    ``judged``: of each target's position what the adherence head says, where it was asked; see ``JudgedTokens``.
    """

    log_probs: list[float]
    greedy: list[bool]
    judged: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class StepResult:
    """One entry per sequence of the batch, in order; None where nothing was asked.

    ``drafted``: by place in the batch, what was drawn behind each drafted token.
    """

    sampled: list[SampledToken | None]
    scored: list[ScoredTokens | None]
    drafted: dict[int, list[SampledToken]] = field(default_factory=dict)
