"""What the draw of a batch of rows takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class SparseAdjustments:
    """Changes to a few logits of each row, in compressed rows: entries ``offsets[r] .. offsets[r+1]`` are row r's.

    ``offsets`` ``[R+1]``, ``token_ids`` and ``generated`` ``[E]`` int32 (how often the token was generated; 0 when
    it only occurs in the prompt), ``bias`` ``[E]`` float32 added first. A biased token outside the text has
    ``generated = -1`` and gets no penalty. ``repetition``, ``presence``, ``frequency`` are ``[R]`` float32.
    """

    offsets: Tensor
    token_ids: Tensor
    generated: Tensor
    bias: Tensor
    repetition: Tensor
    presence: Tensor
    frequency: Tensor


@dataclass(slots=True)
class TokenMasks:
    """Which tokens may be drawn. ``bits``: ``[M, ceil(V / 32)]`` int32; bit ``v % 32`` of word ``v // 32`` allows v.

    ``of_row``: ``[R]`` int32, the mask of each row, -1 for none. Several rows may share one.
    """

    bits: Tensor
    of_row: Tensor


@dataclass(slots=True)
class Truncations:
    """Truncations by the shape of the distribution, each ``[R]`` float32, 0 for off.

    top_n_sigma: the tokens stay whose logit is at least ``max - n sigma``, sigma being the standard deviation of the
    row's possible logits (arXiv 2411.07641); the temperature does not change which. p_less: where it is 1, the tokens
    stay whose probability is at least ``sum p^2`` (arXiv 2509.23234). top_h: with alpha, the most likely tokens stay,
    as many as keep the entropy of what stays at most alpha times that of the distribution (arXiv 2509.02510).
    """

    top_n_sigma: Tensor
    p_less: Tensor
    top_h: Tensor | None = None


@dataclass(slots=True)
class RowParameters:
    """One entry a row, all ``[R]``.

    temperature (0: greedy), top_p, min_p float32; top_k int32 (0: off); seeds int64; steps int32 (tokens drawn
    so far); targets int32: -1 draws a token, any other value reports that token instead. What is None costs nothing;
    ``truncated`` says whether any row truncates. ``near`` float32: the probability that the drawn token should have
    (adaptive-p), -1 for off. ``processed`` int32: 1 where log-probabilities after all of this are wanted, else 0.
    """

    temperature: Tensor
    top_p: Tensor
    min_p: Tensor
    top_k: Tensor
    seeds: Tensor
    steps: Tensor
    targets: Tensor
    adjustments: SparseAdjustments | None = None
    truncated: bool = True
    masks: TokenMasks | None = None
    truncations: Truncations | None = None
    near: Tensor | None = None
    processed: Tensor | None = None


@dataclass(slots=True)
class SampledRows:
    """tokens ``[R]`` int32, -1 where masks and biases leave none; statistics ``[R, 5]`` float32: log-prob, p1, p2,
    entropy, mean top-20 log-prob; top_ids ``[R, 20]`` int32 and top_log_probs ``[R, 20]`` float32 as in RowStatistics.

    probabilities: ``[R]`` float32, only with ``near``: what the drawn token had before adaptive-p, NaN in other rows.
    processed: ``[R, 21]`` float32, only with ``processed``: log-probabilities in the distribution that the row was
    drawn from, of its token, then of ``top_ids``; -inf for what could not be drawn, NaN in rows that did not ask and
    for targets. A greedy row's token has 0.
    """

    tokens: Tensor
    statistics: Tensor
    top_ids: Tensor
    top_log_probs: Tensor
    probabilities: Tensor | None = None
    processed: Tensor | None = None


def greedy_parameters(rows: int) -> RowParameters:
    """Parameters of ``rows`` greedy rows."""
    floats, integers = torch.zeros(rows), torch.zeros(rows, dtype=torch.int32)
    return RowParameters(
        floats, torch.ones(rows), floats, integers, torch.zeros(rows, dtype=torch.int64), integers, integers - 1
    )
