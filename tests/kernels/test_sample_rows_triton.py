"""Sampling by Triton, in the interpreter: what the shared tests of sampling do not reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ift_kernels.sample_rows import RowParameters, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.sample_rows.reference import philox_uniform, sample_rows_reference

triton = pytest.importorskip("triton", reason="Triton is there on Linux only")
import triton.language as tl  # noqa: E402

from ift_kernels.sample_rows.gumbel import gumbel  # noqa: E402


def _drawing(rows: int, *, seed: int, temperature: float = 0.8) -> RowParameters:
    parameters = greedy_parameters(rows)
    parameters.temperature = torch.full((rows,), temperature)
    parameters.seeds = torch.arange(rows) * 7919 + seed
    parameters.steps = torch.arange(rows, dtype=torch.int32)
    parameters.truncated = False
    return parameters


def test_large_vocabularies_give_up_few_tiles_but_the_right_ones() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 45_001) * 2
    logits[1] = 0.25
    logits[2, 44_000:] = 9.0
    parameters = _drawing(3, seed=1)
    ours, theirs = sample_rows(logits, parameters, "triton"), sample_rows_reference(logits, parameters)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.top_ids, theirs.top_ids)
    torch.testing.assert_close(ours.statistics, theirs.statistics, atol=1e-5, rtol=1e-5)


def test_draws_the_tokens_that_the_cpu_draws() -> None:
    torch.manual_seed(1)
    logits = (torch.randn(24, 300) * 2).to(torch.bfloat16)
    parameters = _drawing(24, seed=3)
    assert torch.equal(sample_rows(logits, parameters, "triton").tokens, sample_rows(logits, parameters, "cpu").tokens)


@triton.jit  # type: ignore[untyped-decorator]
def _many_draws_kernel(logits_ptr, seed, tokens_ptr, V: tl.constexpr, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    token = tl.arange(0, V)[None, :] + tl.zeros([ROWS, V], tl.int32)
    step = tl.arange(0, ROWS)[:, None] + tl.zeros([ROWS, V], tl.int32)
    score = tl.load(logits_ptr + token) + gumbel(token, seed, step)
    tl.store(tokens_ptr + tl.arange(0, ROWS), tl.argmax(score, 1).to(tl.int32))


def test_draws_follow_the_distribution() -> None:
    rows, size = 16_384, 8
    logits, tokens = torch.linspace(0, 2.5, size), torch.empty(rows, dtype=torch.int32)
    _many_draws_kernel[(1,)](logits, 1 << 40, tokens, V=size, ROWS=rows)
    counts = np.bincount(tokens.numpy(), minlength=size)
    expected = torch.softmax(logits.double(), -1).numpy() * rows
    # 99.9 % of a chi-squared distribution with 7 degrees of freedom lie below 24.3.
    assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_noise_is_the_generator_of_the_definition() -> None:
    """With equal logits the draw is the argmax of the noise itself."""
    parameters = _drawing(5, seed=123456789012345, temperature=1.0)
    tokens = sample_rows(torch.zeros(5, 997), parameters, "triton").tokens
    for row in range(5):
        assert tokens[row] == int(np.argmax(philox_uniform(int(parameters.seeds[row]), row, 997)))


def test_a_row_is_the_same_alone_and_in_any_batch() -> None:
    torch.manual_seed(2)
    logits, parameters = torch.randn(6, 211), _drawing(6, seed=5)
    parameters.top_p, parameters.truncated = torch.full((6,), 0.7), True
    together = sample_rows(logits, parameters, "triton")
    names = ("temperature", "top_p", "min_p", "top_k", "seeds", "steps", "targets")
    for row in (0, 3, 5):
        alone = RowParameters(*(getattr(parameters, name)[row : row + 1] for name in names))
        result = sample_rows(logits[row : row + 1], alone, "triton")
        assert torch.equal(result.tokens[0], together.tokens[row])
        assert torch.equal(result.statistics[0], together.statistics[row])


def test_rows_may_be_strided_and_half_precision() -> None:
    torch.manual_seed(3)
    logits = torch.randn(4, 64).half()[:, :50]
    parameters = _drawing(4, seed=9)
    assert torch.equal(
        sample_rows(logits, parameters, "triton").tokens, sample_rows_reference(logits, parameters).tokens
    )
