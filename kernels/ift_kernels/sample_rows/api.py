"""Per-row sampling with a counter-based generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton

TOP = 20
"""How many of the most likely tokens are reported, and averaged in the ``mean_top20`` statistic."""


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
class RowParameters:
    """One entry a row, all ``[R]``.

    temperature (0: greedy), top_p, min_p float32; top_k int32 (0: off); seeds int64; steps int32 (tokens drawn
    so far); targets int32: -1 draws a token, any other value reports that token instead.
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


@dataclass(slots=True)
class SampledRows:
    """tokens ``[R]`` int32; statistics ``[R, 5]`` float32: log-prob, p1, p2, entropy, mean top-20 log-prob;
    top_ids ``[R, 20]`` int32 (-1 beyond the vocabulary and for impossible tokens, whose logit is -inf; the mean leaves
    them out) and top_log_probs ``[R, 20]`` float32, most likely first."""

    tokens: Tensor
    statistics: Tensor
    top_ids: Tensor
    top_log_probs: Tensor


def sample_rows(logits: Tensor, parameters: RowParameters, backend: str = "auto") -> SampledRows:
    """Draw one token a row; report statistics of the raw logits at temperature 1 (natural logarithms).

    logits: ``[R, V]`` float32 or bfloat16. Order: bias, repetition (divide positive, multiply negative logits),
    presence and frequency penalties, temperature, top-k (ties with the k-th stay), top-p (a token stays while
    the mass strictly above it is below p, after top-k), min-p (relative to the most likely). The draw is
    ``argmax_v z_v - log(-log u_v)`` (Gumbel-max) with ``u_v`` from Philox-4x32-10, key = seed, counter = (v, step):
    equal seeds, steps and logits give equal tokens in any batch on any device. Right for every finite logit and every
    temperature; one below the smallest normal float32 counts as that. A penalised logit saturates at the largest
    float32. A row with a NaN or +inf, or of -inf alone, has no distribution: its statistics are NaN, its token is any.
    """
    if uses_cpu(logits, backend):
        from ift_kernels.sample_rows.cpu import sample_rows_cpu

        return sample_rows_cpu(logits, parameters)
    if uses_triton(logits, backend):
        from ift_kernels.sample_rows.triton import sample_rows_triton

        return sample_rows_triton(logits, parameters)
    from ift_kernels.sample_rows.reference import sample_rows_reference

    return sample_rows_reference(logits, parameters)


def greedy_parameters(rows: int) -> RowParameters:
    """Parameters of ``rows`` greedy rows."""
    floats, integers = torch.zeros(rows), torch.zeros(rows, dtype=torch.int32)
    return RowParameters(
        floats, torch.ones(rows), floats, integers, torch.zeros(rows, dtype=torch.int64), integers, integers - 1
    )
