"""Paged prefill in Triton's interpreter, on the CPU, and its definition, against dense float64 attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_prefill import PrefillPlan, paged_prefill, prefill_plan
from tests.kernels.paged_cases import FP8, Sequences, assert_close, attend, make_bias, make_sequences, poisoned_empty

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures(poisoned_empty.__name__)

CHUNKS = [5, 17, 0, 1, 66, 16]
LENGTHS = [5, 100, 8, 65, 200, 48]


def _run(
    query: torch.Tensor,
    cached: Sequences,
    chunks: list[int],
    window: int = 0,
    softcap: float = 0.0,
    bias: InstructionBias | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    backend: str = "triton",
    plan: PrefillPlan | None = None,
) -> torch.Tensor:
    bounds = torch.tensor([0, *chunks]).cumsum(0).int()
    return paged_prefill(
        query,
        cached.key_cache,
        cached.value_cache,
        cached.block_tables,
        bounds,
        cached.lengths,
        query.shape[2] ** -0.5,
        window,
        softcap,
        plan,
        bias,
        *scales,
        backend,
    )


def _expected(
    query: torch.Tensor,
    cached: Sequences,
    chunks: list[int],
    window: int = 0,
    softcap: float = 0.0,
    bias: InstructionBias | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:
    lengths = cached.lengths.tolist()
    places = [
        (sequence, lengths[sequence] - count + i + 1) for sequence, count in enumerate(chunks) for i in range(count)
    ]
    scale = query.shape[2] ** -0.5 * scales[0]
    rows = [attend(query[t], cached, *places[t], scale, window, softcap, bias) for t in range(len(places))]
    return torch.stack(rows) * scales[1]


@pytest.mark.parametrize(
    ("dtype", "cache_dtype", "heads", "kv_heads", "width", "block", "window", "softcap", "biased"),
    [
        (torch.float32, None, 4, 2, 64, 16, 0, 0.0, False),
        (torch.float32, None, 6, 2, 80, 16, 40, 30.0, True),
        (torch.float32, None, 2, 2, 32, 64, 1, 0.0, False),
        (torch.bfloat16, None, 5, 1, 128, 16, 0, 0.0, True),
        (torch.bfloat16, None, 2, 1, 128, 16, 130, 0.0, False),
        (torch.bfloat16, None, 2, 2, 256, 32, 100, 0.0, False),
        (torch.float16, None, 7, 1, 96, 48, 17, 50.0, True),
        (torch.bfloat16, FP8, 6, 2, 48, 32, 0, 0.0, True),
        (torch.float16, FP8, 4, 4, 64, 16, 33, 20.0, False),
    ],
)
@pytest.mark.parametrize("backend", ["triton", "reference"])
def test_equals_dense_attention(
    backend: str,
    dtype: torch.dtype,
    cache_dtype: torch.dtype | None,
    heads: int,
    kv_heads: int,
    width: int,
    block: int,
    window: int,
    softcap: float,
    biased: bool,
) -> None:
    torch.manual_seed(0)
    cached = make_sequences(LENGTHS, kv_heads, width, block, cache_dtype or dtype)
    query = torch.randn(sum(CHUNKS), heads + 1, width).to(dtype)[:, :heads]
    bias = make_bias(cached, heads) if biased else None
    scales = (0.5, 1.5) if cache_dtype else (1.0, 1.0)
    output = _run(query, cached, CHUNKS, window, softcap, bias, scales, backend)
    assert_close(output, _expected(query, cached, CHUNKS, window, softcap, bias, scales))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (30, 20.0)])
def test_the_cpu_shares_tiles_of_the_decode_kernel(dtype: torch.dtype, window: int, softcap: float) -> None:
    torch.manual_seed(1)
    cached = make_sequences(LENGTHS, 2, 48, 16, dtype, token_major=False)
    query = torch.randn(sum(CHUNKS), 6, 48).to(dtype)
    for bias in (None, make_bias(cached, 6)):
        output = _run(query, cached, CHUNKS, window, softcap, bias, backend="auto")
        assert_close(output, _expected(query, cached, CHUNKS, window, softcap, bias))


def test_chunks_give_what_the_whole_prompt_gives() -> None:
    torch.manual_seed(2)
    cached = make_sequences([150], 1, 64, 16, torch.float32)
    query = torch.randn(150, 3, 64)
    whole = _run(query, cached, [150])
    for first, end in ((0, 47), (47, 48), (48, 150)):
        cached.lengths[0] = end
        chunk = _run(query[first:end], cached, [end - first])
        torch.testing.assert_close(chunk, whole[first:end], atol=1e-5, rtol=1e-5)


def test_tokens_before_the_window_of_the_chunk_are_not_read() -> None:
    torch.manual_seed(3)
    cached = make_sequences([200, 90], 1, 32, 16, torch.float32, forgotten=30)
    query = torch.randn(11, 2, 32)
    output = _run(query, cached, [7, 4], window=24)
    assert_close(output, _expected(query, cached, [7, 4], window=24))


def test_a_plan_holds_every_token_once_and_the_last_tokens_first() -> None:
    plan = prefill_plan([300, 0, 7, 130], 6, 2, 64, "cpu")
    step = plan.block_m // 3
    found = [(s, token) for s, first in plan.tiles.tolist() for token in range(first, first + step)]
    assert plan.tiles.dtype == torch.int32 and len(found) == len(set(found))
    assert {(s, t) for s, n in ((0, 300), (2, 7), (3, 130)) for t in range(n)} <= set(found)
    assert plan.tiles[:, 1].tolist() == sorted(plan.tiles[:, 1].tolist(), reverse=True)
    assert prefill_plan([], 6, 2, 64, "cpu").tiles.shape == (0, 2)
    assert prefill_plan([3], 200, 1, 64, "cpu").block_m == 256


def test_padding_tiles_of_a_plan_do_nothing() -> None:
    torch.manual_seed(4)
    cached = make_sequences([40, 9], 1, 32, 16, torch.float32)
    query = torch.randn(12, 4, 32)
    plan = prefill_plan([10, 2], 4, 1, 32, "cpu")
    longer = PrefillPlan(torch.cat([plan.tiles, torch.tensor([[-1, 0]], dtype=torch.int32)]), plan.block_m)
    output = _run(query, cached, [10, 2], plan=longer)
    assert_close(output, _expected(query, cached, [10, 2]))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    parts=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 100)), min_size=1, max_size=3),
    group=st.integers(1, 8),
    kv_heads=st.integers(1, 2),
    width=st.sampled_from([32, 40, 112]),
    block=st.sampled_from([16, 32, 64]),
    window=st.sampled_from([0, 1, 16, 70]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    parts: list[tuple[int, int]],
    group: int,
    kv_heads: int,
    width: int,
    block: int,
    window: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    chunks = [chunk for chunk, _ in parts]
    cached = make_sequences([chunk + before for chunk, before in parts], kv_heads, width, block, dtype)
    query = torch.randn(sum(chunks), group * kv_heads, width).to(dtype)
    bias = make_bias(cached, group * kv_heads)
    output = _run(query, cached, chunks, window, 0.0, bias)
    assert_close(output, _expected(query, cached, chunks, window, 0.0, bias))
