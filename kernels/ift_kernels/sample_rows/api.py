"""Per-row sampling with a counter-based generator."""

from __future__ import annotations

from torch import Tensor

from ift_kernels.backend import uses_cpu, uses_triton
from ift_kernels.row_statistics import TOP, RowStatistics, row_statistics
from ift_kernels.sample_rows.types import (
    RowParameters,
    SampledRows,
    SparseAdjustments,
    TokenMasks,
    Truncations,
    greedy_parameters,
)

__all__ = [
    "TOP",
    "RowParameters",
    "SampledRows",
    "SparseAdjustments",
    "TokenMasks",
    "Truncations",
    "greedy_parameters",
    "sample_rows",
]


def sample_rows(
    logits: Tensor, parameters: RowParameters, backend: str = "auto", statistics: RowStatistics | None = None
) -> SampledRows:
    """Draw one token a row; report the statistics of the raw logits at temperature 1 (natural logarithms).

    logits: ``[R, V]`` float32 or bfloat16; statistics: theirs. Computed here if not given, on a CPU in one pass with
    the draw, which costs less than one after the other. Order: bias, repetition (divide positive, multiply negative
    logits), presence and frequency penalties, mask, temperature, top-n-sigma, top-k (ties with the k-th stay), top-p (a
    token stays while the mass strictly above it is below p), min-p (relative to the most likely), p-less, top-H (of
    equal tokens the first); each sees what the one before left, renormalised. Then adaptive-p scores a token of
    probability p ``5 - 10 d^2 / (1 + d)``, ``d = |p - near| / 0.3``, in place of log p.

    The draw is ``argmax_v z_v - log(-log u_v)`` (Gumbel-max) with ``u_v`` from Philox-4x32-10, key = seed, counter =
    (v, step): equal seeds, steps and logits give equal tokens in any batch on any device. Right for every finite logit
    and every temperature; one below the smallest normal float32 counts as that. A penalised logit saturates at the
    largest float32. A row with a NaN or +inf, or of -inf alone, has no distribution: its statistics are NaN, its token
    is any. A row that masks and biases leave no token has the token -1 and a log-probability that is NaN.

    Log-probabilities after all of that (``RowParameters.processed``) are of the scores as they were compared, rounded
    to float32: by ``|z| 2^-23`` for a tempered logit z of that size.

    A greedy row that nothing changes and a target read one logit; a drawn row reads its logits once.
    """
    if uses_cpu(logits, backend):
        from ift_kernels.sample_rows.cpu import sample_rows_cpu

        return sample_rows_cpu(logits, parameters, statistics)
    known = row_statistics(logits, backend) if statistics is None else statistics
    if uses_triton(logits, backend):
        from ift_kernels.sample_rows.triton import sample_rows_triton

        return sample_rows_triton(logits, parameters, known)
    from ift_kernels.sample_rows.reference import sample_rows_reference

    return sample_rows_reference(logits, parameters, known)
